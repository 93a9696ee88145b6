"""What a server signs of an answer: a statement for each choice, and its canonical form.

Needs no torch. `docs/receipts.md` defines every digest, with an example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rfc8785

from ..protocol import ChoiceProofs, PromptDigest, Receipt, Statement, ToplocProofs, token_ids_sha256
from .output import output_of, shown_in
from .request import digest
from .signed import leaves_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .keys import SigningKey


def issue(
    key: SigningKey,
    proofs: ToplocProofs,
    response: Mapping[str, Any],
    *,
    request_sha256: str | None,
    request_body_sha256: str | None = None,
    weights_sha256: str | None = None,
    fields: Sequence[str] | None = None,
    issued_at: int,
) -> ToplocProofs:
    """The field with a receipt in each choice that has proofs.

    `response`: as it was delivered. `request_sha256`, `request_body_sha256`: `request_digest` and `body_sha256` of the
    body as it came. `weights_sha256`: of the weights that the server was started with, for answers that no others made.
    `fields`: those of the response that are known, None if all are; no leaves are signed where none is.
    """
    signed = []
    for choice in proofs.choices or ():
        prompt = choice.prompt or proofs.prompt
        if choice.proofs is None or prompt is None:
            signed.append(choice)
            continue
        statement = Statement(
            key_id=key.public.key_id,
            issued_at=issued_at,
            request_sha256=request_sha256,
            request_body_sha256=request_body_sha256,
            weights_sha256=None if choice.weights else weights_sha256,
            **stated(proofs, choice, prompt, response),
            **_leaves(response, choice.index, fields),
        )
        receipt = Receipt(statement=statement, signature=key.sign(canonical(statement)))
        signed.append(choice.model_copy(update={"receipt": receipt}))
    return proofs.model_copy(update={"choices": tuple(signed)}) if signed else proofs


def canonical(statement: Statement) -> bytes:
    """The bytes that are signed: RFC 8785, without what is absent."""
    return rfc8785.dumps(statement.model_dump(exclude_none=True))


def stated(
    proofs: ToplocProofs,
    choice: ChoiceProofs,
    prompt: PromptDigest,
    response: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that a statement says but who signed what request, when, and which leaves."""
    response_id = response.get("id", response.get("request_id"))
    shown = shown_in(response, choice.index)
    output = output_of(shown)
    return {
        "response_id": response_id if isinstance(response_id, str) else "",
        "created": _seconds(response.get("created", response.get("created_at"))),
        "model": proofs.model,
        "dtype": proofs.dtype,
        "rounded_from": proofs.rounded_from,
        "model_revision": proofs.model_revision,
        "weights": choice.weights,
        "choice": choice.index,
        "prompt_tokens": prompt.num_tokens,
        "prompt_sha256": prompt.sha256,
        "media_sha256": None if prompt.media is None else digest([one.model_dump() for one in prompt.media]),
        "tokens": len(choice.token_ids),
        "token_ids_sha256": token_ids_sha256(choice.token_ids),
        "proofs_sha256": digest(list(choice.proofs or ())),
        "sampler": None if choice.seed is None else proofs.sampler,
        "seed": None if choice.seed is None else str(choice.seed),
        "finish_reason": shown.get("finish_reason"),
        "output_sha256": None if output is None else digest(output),
    }


def _seconds(value: object) -> int | None:
    """An SDK may have made a float of it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _leaves(response: Mapping[str, Any], choice: int, fields: Sequence[str] | None) -> dict[str, Any]:
    """What a statement says of a response's leaves."""
    if fields is not None and not fields:
        return {}
    made = leaves_sha256(response, choice, fields)
    return {"leaves_sha256": made, "leaves_of": None if fields is None or made is None else tuple(sorted(fields))}
