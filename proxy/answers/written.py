"""The field of an answer of one choice as JSON, which is what nearly every answer has.

The models of `toploc.protocol` say the same in three times as long, and all of it is the event loop's time. They write
whatever is not as plain: several choices, errors, receipts, weights that changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from toploc.scheme import CHUNK_SIZE, SCHEME, TOPK, VERSION

if TYPE_CHECKING:
    from toploc.protocol import ChoiceProofs, PromptDigest

    from .context import Served


class _Choice(msgspec.Struct, omit_defaults=True):
    """A `ChoiceProofs`."""

    index: int
    token_ids: tuple[int, ...]
    proofs: tuple[str, ...] | None
    seed: int | None = None


class _Field(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A `ToplocProofs`, its fields in the same order."""

    version: int
    scheme: str
    chunk_size: int
    topk: int
    dtype: str
    rounded_from: str | None = None
    model: str
    model_revision: str | None = None
    sampler: str | None = None
    engine: msgspec.Raw | None = None
    prompt: msgspec.Raw | None = None
    choices: tuple[_Choice, ...] | None = None


_encode = msgspec.json.Encoder().encode


def is_plain(choice: ChoiceProofs) -> bool:
    """Whether `written` can write it."""
    return choice.proofs is not None and choice.receipt is None and choice.weights is None and choice.prompt is None


def written(served: Served, model: str, prompt: PromptDigest, choice: ChoiceProofs) -> bytes:
    """As `ToplocProofs.to_json`, byte for byte, of the answer whose only choice this is."""
    field = _Field(
        version=VERSION,
        scheme=SCHEME,
        chunk_size=CHUNK_SIZE,
        topk=TOPK,
        dtype=served.dtype,
        rounded_from=served.rounded_from,
        model=model,
        model_revision=served.revision,
        sampler=served.sampler if choice.seed is not None else None,
        engine=served.engine_json,
        prompt=_prompt(prompt),
        choices=(_Choice(0, choice.token_ids, choice.proofs, choice.seed),),
    )
    return _encode(field)


def _prompt(digest: PromptDigest) -> msgspec.Raw:
    if digest.media is None and digest.token_ids is None:
        # Two fields that have nothing to escape.
        return msgspec.Raw(b'{"num_tokens":%d,"sha256":"%s"}' % (digest.num_tokens, digest.sha256.encode()))
    return msgspec.Raw(digest.model_dump_json(exclude_none=True).encode())
