"""The response extension `toploc_proofs`, version 1: the one definition that prover, verifier and client share.

Needs pydantic alone. `docs/protocol.md` explains the fields with an example for each endpoint.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .engine import Engine  # noqa: TC001 (pydantic reads it)
from .scheme import CHUNK_SIZE, SCHEME, TOPK, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELD_NAME: Final = "toploc_proofs"
"""Of a response: the extension."""

OPTIONS_NAME: Final = "toploc"
"""Of a request: `RequestOptions`."""

TokenId = Annotated[int, Field(ge=0, lt=2**32)]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

Seconds = Annotated[int, Field(ge=0, lt=2**53, description="since 1970, UTC")]

Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]

Sampler = Annotated[str, Field(min_length=1, max_length=40)]

Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Media(_Frozen):
    """An image, audio or video of a prompt: the tokens that stand for it, and a digest of what was sent or fetched.

    `docs/protocol.md` says of which bytes `sha256` is.
    """

    modality: str = Field(min_length=1, max_length=40)
    offset: Count = Field(description="of the first of its tokens in the prompt")
    length: Count = Field(description="of its tokens")
    sha256: Sha256


class PromptDigest(_Frozen):
    """Which prompt an answer continues, without repeating it."""

    num_tokens: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    media: tuple[Media, ...] | None = Field(
        default=None, min_length=1, description="in the order of their places; left out of prompts that have none"
    )
    token_ids: tuple[TokenId, ...] | None = Field(
        default=None, description='sent when the request asks for it: `"toploc": {"prompt_token_ids": true}`'
    )

    @classmethod
    def of(cls, token_ids: Sequence[int], *, include_ids: bool = False, media: Sequence[Media] = ()) -> Self:
        """Digest of a prompt's token ids, each taken as a little-endian uint32, and of its media."""
        return cls(
            num_tokens=len(token_ids),
            sha256=token_ids_sha256(token_ids),
            media=tuple(media) or None,
            token_ids=tuple(token_ids) if include_ids else None,
        )


class ProofError(_Frozen):
    """Why there is no proof. `code` is stable and listed in `docs/protocol.md`; `message` is for people."""

    code: str
    message: str


class WeightSpan(_Frozen):
    """Tokens `start` up to `end` of a choice, made by one version of the weights. Versions count how often weights were
    loaded since the server's start, from 0. A span of no tokens made a part of the prompt's states."""

    version: Count
    start: Count
    end: Count


class Statement(_Frozen):
    """What a receipt says of one choice. `docs/receipts.md` defines each digest; what does not apply is left out."""

    type: Literal["toploc-receipt"] = "toploc-receipt"
    version: Literal[1] = 1
    key_id: str = Field(pattern="^[0-9a-f]{16}$")
    issued_at: Seconds
    response_id: str
    created: Seconds | None = Field(default=None, description="the response's own time")
    request_sha256: Sha256 | None = Field(default=None, description="left out if the request has no canonical form")
    request_body_sha256: Sha256 | None = Field(default=None, description="of the exact bytes of the request's body")
    model: str
    scheme: Literal["toploc-gf65497"] = SCHEME
    dtype: Literal["bfloat16", "float16"]
    rounded_from: Literal["float32"] | None = None
    choice: Count
    prompt_tokens: Count
    prompt_sha256: Sha256
    media_sha256: Sha256 | None = Field(default=None, description="of the prompt's media")
    tokens: Count
    token_ids_sha256: Sha256
    proofs_sha256: Sha256
    model_revision: str | None = None
    weights: tuple[WeightSpan, ...] | None = None
    weights_sha256: Sha256 | None = Field(default=None, description="of the files that the first weights are from")
    sampler: Sampler | None = None
    seed: str | None = Field(default=None, pattern="^-?[0-9]{1,19}$", description="as text: RFC 8785 has no int64")
    finish_reason: str | None = None
    output_sha256: Sha256 | None = Field(default=None, description="text, reasoning and tool calls, as delivered")
    leaves_sha256: Sha256 | None = Field(default=None, description="of all that the response says, less what is free")
    leaves_of: tuple[Annotated[str, Field(max_length=100)], ...] | None = Field(
        default=None,
        max_length=100,
        description="the response's fields that `leaves_sha256` is of, where others may come later in a stream",
    )


class Receipt(_Frozen):
    """A statement and the Ed25519 signature over its canonical form, base64."""

    statement: Statement
    signature: str = Field(pattern="^[A-Za-z0-9+/]{86}==$")


class ChoiceProofs(_Frozen):
    """One choice's tokens and their proofs, one per chunk of 32 tokens, base64."""

    index: int = Field(ge=0)
    token_ids: tuple[TokenId, ...]
    proofs: tuple[str, ...] | None = None
    error: ProofError | None = Field(default=None, description="in place of `proofs`")
    prompt: PromptDigest | None = Field(
        default=None, description="this choice's prompt, where it is not the first choice's"
    )
    seed: Seed | None = Field(default=None, description="with which the tokens were drawn, by `sampler`")
    weights: tuple[WeightSpan, ...] | None = Field(
        default=None, min_length=1, description="which weights made which tokens, if others than the first were loaded"
    )
    receipt: Receipt | None = Field(default=None, description="from servers that sign; never without `proofs`")

    @model_validator(mode="after")
    def _proofs_or_error(self) -> Self:
        if (self.proofs is None) == (self.error is None):
            raise ValueError("a choice has either `proofs` or `error`")
        if self.receipt is not None and self.proofs is None:
            raise ValueError("a choice without `proofs` has no `receipt`")
        if self.weights is not None and not _covers(self.weights, len(self.token_ids)):
            raise ValueError("`weights` are not of each token once, in order")
        return self

    @property
    def spans_weights(self) -> bool:
        """Whether more than one version of the weights made it. What the later ones made rests on the keys and values
        of the earlier, so no single version can compute it."""
        return self.weights is not None and len(self.weights) > 1


class ToplocProofs(_Frozen):
    """The field `toploc_proofs` of a response."""

    version: Literal[1] = VERSION
    scheme: Literal["toploc-gf65497"] = SCHEME
    chunk_size: Literal[32] = CHUNK_SIZE
    topk: Literal[128] = TOPK
    dtype: Literal["bfloat16", "float16"]
    rounded_from: Literal["float32"] | None = Field(
        default=None, description="the model's own dtype, where its hidden states were rounded to `dtype`"
    )
    model: str
    model_revision: str | None = Field(
        default=None, max_length=100, description="the commit that the model was loaded from, if it has one"
    )
    sampler: Sampler | None = Field(
        default=None, description="what draws noise from the choices' seeds, if any has one"
    )
    engine: Engine | None = Field(
        default=None, description="what computed the states, by the prover's own word; not said by earlier provers"
    )
    prompt: PromptDigest | None = Field(default=None, description="the first choice's prompt")
    choices: tuple[ChoiceProofs, ...] | None = None
    error: ProofError | None = Field(default=None, description="in place of `choices`")

    @model_validator(mode="after")
    def _choices_or_error(self) -> Self:
        if (self.choices is None) == (self.error is None):
            raise ValueError("`toploc_proofs` has either `choices` or `error`")
        if self.choices is not None and self.prompt is None:
            raise ValueError("`toploc_proofs.choices` needs `toploc_proofs.prompt`")
        return self

    def to_json(self) -> bytes:
        """The field's value as sent: absent options are left out, since explicit nulls break strict clients."""
        return self.model_dump_json(exclude_none=True).encode()


class RequestOptions(_Frozen):
    """The request's `"toploc": {…}`; None takes the server's default."""

    enabled: bool | None = None
    prompt_token_ids: bool = False


def _covers(spans: Sequence[WeightSpan], count: int) -> bool:
    """Whether spans follow each other from token 0 to the last, each of later weights than the one before it."""
    ends = [0, *(span.end for span in spans)]
    versions = [span.version for span in spans]
    return (
        ends[-1] == count
        and all(span.start == end <= span.end for span, end in zip(spans, ends, strict=False))
        and all(one < other for one, other in pairwise(versions))
    )


def num_chunks(num_tokens: int) -> int:
    """How many proofs an answer of `num_tokens` tokens has."""
    return -(-num_tokens // CHUNK_SIZE)


def token_ids_sha256(token_ids: Sequence[int]) -> str:
    """SHA-256 over the token ids, each a little-endian uint32, in hexadecimal."""
    values = array("I", token_ids)
    if sys.byteorder == "big":
        values.byteswap()
    return hashlib.sha256(values).hexdigest()
