"""Whether a receipt is one for a request and its response.

Needs no torch. `docs/receipts.md` defines every digest, with an example.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from ..errors import MalformedEvidence
from ..foreign import quote
from ..protocol import FIELD_NAME, ChoiceProofs, PromptDigest, Receipt, Statement, ToplocProofs, token_ids_sha256
from .output import foreign_in, route_of, tokens_in
from .request import body_sha256, digest, is_bendable, says, spellings_sha256
from .signed import fields_in, leaves_sha256
from .statement import canonical, stated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .keys import PublicKey


MAX_UNCOVERED: Final = 20
"""Fields that a result names. Stops responses of thousands from filling reports."""

Known = Literal["exact", "canonical", "prompt", "another", "unknown"]
"""What is known of a request: that it is the one that was signed, or one of its canonical form; or of one that was
written from what was kept, that its prompt's tokens are those that were signed."""


@dataclass(frozen=True, slots=True)
class ReceiptResult:
    """Whether one choice has a valid receipt. `reason` is None if so; `docs/receipts.md` lists the others.

    `request`, if so: `exact`; or `canonical` or `prompt`, where others may lead to other answers.
    `uncovered`: the response's fields that say something the receipt does not cover; `leaves` for all that is no text,
    reasoning or tool call, `output` for these.
    """

    choice: int | None
    status: Literal["passed", "failed", "skipped"]
    reason: str | None
    message: str
    statement: Statement | None = None
    request: Known = "unknown"
    uncovered: tuple[str, ...] = ()


def verify_receipt(
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    keys: Iterable[PublicKey],
    body: bytes | None = None,
    *,
    partial: bool = False,
) -> tuple[ReceiptResult, ...]:
    """Hold the receipts in a response against it, against its request, and against the keys that are trusted.

    `request` is the JSON body as it was sent, and `body` its bytes, where they were kept; `response` is the object that
    came back or was put together from a stream's events (`toploc.evidence.assembly`). A `partial` one is what was kept
    of it, with its request in any form: what is not there is not held against it. One result for each choice with
    tokens; one for the whole where there are none. Raises MalformedEvidence, if `toploc_proofs` does not parse.
    """
    sent = response.get(FIELD_NAME)
    if sent is None:
        return (ReceiptResult(None, "skipped", "no_receipt", "the answer has no proofs and no receipt"),)
    try:
        proofs = ToplocProofs.model_validate_json(json.dumps(sent), strict=True)
    except (ValidationError, TypeError, ValueError, RecursionError):
        raise MalformedEvidence(f"response.{FIELD_NAME}", "not a field of version 1") from None
    return check_receipts(request, response, proofs, keys, body, partial=partial)


def check_receipts(
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    proofs: ToplocProofs,
    keys: Iterable[PublicKey],
    body: bytes | None = None,
    *,
    partial: bool = False,
) -> tuple[ReceiptResult, ...]:
    """See `verify_receipt`; of each choice:

    1. It has a receipt, of a key that is trusted.
    2. The signature is by that key over the canonical statement.
    3. It was issued while the key was in use.
    4. The statement is about this request: see `_Asked.is_of`.
    5. The response says nothing in the place of another route, where a receipt does not look: see `foreign_in`.
    6. The statement is about this response, prompt, these tokens, proofs and, where it says so, output. Without trusted
       keys 4 to 8 alone are checked.
    7. What the response itself gives for tokens are those of the statement.
    8. Where the statement says so, the response has the leaves that were signed, and no others.
    """
    trusted = {key.key_id: key for key in keys}
    if not proofs.choices:
        return (ReceiptResult(None, "skipped", "no_receipt", "an answer without proofs has no receipt"),)
    asked = _Asked(request, body)
    results = []
    for choice in proofs.choices:
        receipt, prompt = choice.receipt, choice.prompt or proofs.prompt
        if receipt is None or prompt is None:
            results.append(ReceiptResult(choice.index, "skipped", "no_receipt", "the server did not sign the answer"))
            continue
        statement, key = receipt.statement, trusted.get(receipt.statement.key_id)
        problem = _untrusted(receipt, key) if trusted else None  # 1-3
        known = asked.is_of(statement)  # 4
        if partial and known in ("another", "unknown"):
            known = "prompt"
        if problem is None and known == "another":
            problem = "request_differs", "the receipt is for another request"
        if problem is None:
            problem = _of_another_route(request, response, choice.index)  # 5
        if problem is None:
            actual = stated(proofs, choice, prompt, response)
            problem = _another_answer(statement, actual, prompt, response, partial=partial)  # 6
        if problem is None:
            problem = _other_tokens(response, choice, prompt)  # 7
        if problem is None and not partial:
            problem = _other_leaves(statement, response)  # 8
        if problem is not None:
            results.append(ReceiptResult(choice.index, "failed", *problem, statement))
        elif known == "unknown":
            message = "it can be told of no request whether it is this one's; the exact body can (`request_body`)"
            results.append(ReceiptResult(choice.index, "skipped", "request_unknown", message, statement))
        elif key is None:
            message = f"for this answer, but no keys are trusted; signed with {statement.key_id}"
            results.append(ReceiptResult(choice.index, "skipped", "no_trusted_keys", message, statement))
        else:
            uncovered = _uncovered(statement, response, partial=partial)
            beside = f", but for: {', '.join(map(quote, uncovered))}" if uncovered else ", every field that is not free"
            asked_for = "; of the request, the prompt's tokens alone" if known == "prompt" else ""
            message = f"signed with key {key.key_id}{beside}{asked_for}"
            results.append(ReceiptResult(choice.index, "passed", None, message, statement, known, uncovered))
    return tuple(results)


class _Asked:
    """The request that receipts are held against."""

    def __init__(self, request: Mapping[str, Any], body: bytes | None) -> None:
        self._request = request
        self._body = body
        self._is_body = cache(lambda: body is not None and says(body, request))
        self._sha256 = cache(lambda: digest(request))
        self._spellings = cache(lambda: spellings_sha256(request))
        self._is_bendable = cache(lambda: is_bendable(request))

    def is_of(self, statement: Statement) -> Known:
        """Whether a statement is about it.

        1. The exact bytes decide, where there are some and the statement knows them.
        2. Without them, a spelling of the request that has the digest of the bytes is the one that was sent.
        3. Else the canonical form decides, where the request or the statement has one.
        """
        if self._body is not None and not self._is_body():
            return "another"
        stated = statement.request_body_sha256
        if stated is not None and self._body is not None:  # 1
            return "exact" if body_sha256(self._body) == stated else "another"
        if stated is not None and stated in self._spellings():  # 2
            return "exact"
        if statement.request_sha256 is None and self._sha256() is None:
            return "unknown"
        if statement.request_sha256 != self._sha256():  # 3
            return "another"
        return "canonical" if self._is_bendable() else "exact"


def _untrusted(receipt: Receipt, key: PublicKey | None) -> tuple[str, str] | None:
    """The reason and the message, where `key`, the trusted one that it names, did not sign a receipt."""
    statement = receipt.statement
    if key is None:  # 1
        return "unknown_key", f"signed with key {statement.key_id}, which is not trusted"
    if not key.verifies(receipt.signature, canonical(statement)):  # 2
        return "signature", f"the signature is not by key {key.key_id} over this statement"
    if key.expired_at(statement.issued_at):  # 3
        return "key_expired", f"issued after the time of key {key.key_id}"
    return None


def _of_another_route(request: Mapping[str, Any], response: Mapping[str, Any], index: int) -> tuple[str, str] | None:
    path = foreign_in(response, index, request)
    return None if path is None else ("output_differs", f"`{path}` is not said where an answer of this route says it")


def _another_answer(
    statement: Statement,
    actual: Mapping[str, Any],
    prompt: PromptDigest,
    response: Mapping[str, Any],
    *,
    partial: bool = False,
) -> tuple[str, str] | None:
    """The reason and the message, where a statement is about another answer than that of which all is `actual`."""
    for name, reason in DIFFERENCES.items():
        stated = getattr(statement, name)
        unkept = partial and (name in OF_THE_WHOLE or actual[name] == SAID.get(name, stated))
        if actual[name] != stated and not unkept and not (name == "output_sha256" and stated is None):
            return reason, f"the receipt is for another answer: its {name} is not this one's"
    ids: Sequence[int] | None = prompt.token_ids
    if ids is not None and token_ids_sha256(ids) != prompt.sha256:
        return "prompt_differs", "the prompt's token ids are not those of its digest"
    if response.get("model", statement.model) != statement.model:
        return "response_differs", "the response names another model than the receipt"
    return None


def _other_tokens(response: Mapping[str, Any], choice: ChoiceProofs, prompt: PromptDigest) -> tuple[str, str] | None:
    """Of an answer of tokens, which says what it says in them."""
    if route_of(response) != "generate":
        return None
    if tokens_in(response, choice.index) != list(choice.token_ids):
        return "tokens_differ", "the response has other token ids than its proofs"
    ids = response.get("prompt_token_ids")
    if ids is not None and _sha256_of(ids) != prompt.sha256:
        return "prompt_differs", "the prompt's token ids are not those of its digest"
    return None


def _other_leaves(statement: Statement, response: Mapping[str, Any]) -> tuple[str, str] | None:
    if statement.leaves_sha256 is None:
        return None
    if leaves_sha256(response, statement.choice, statement.leaves_of) == statement.leaves_sha256:
        return None
    return "leaves_differ", "a field of the response is not as it was signed, was added, or was left out"


def _uncovered(statement: Statement, response: Mapping[str, Any], *, partial: bool) -> tuple[str, ...]:
    """See `ReceiptResult`."""
    if statement.leaves_sha256 is None or partial:
        return ("leaves",) if statement.output_sha256 is not None else ("leaves", "output")
    known = statement.leaves_of
    if known is None:
        return ()
    return tuple(name for name in fields_in(response, statement.choice) if name not in known)[:MAX_UNCOVERED]


def _sha256_of(token_ids: Any) -> str | None:
    """None of what are no token ids."""
    try:
        return token_ids_sha256(token_ids)
    except (TypeError, ValueError, OverflowError):
        return None


DIFFERENCES: Final = {
    "response_id": "response_differs",
    "created": "response_differs",
    "finish_reason": "response_differs",
    "model": "response_differs",
    "dtype": "proofs_differ",
    "rounded_from": "proofs_differ",
    "model_revision": "proofs_differ",
    "weights": "proofs_differ",
    "choice": "response_differs",
    "prompt_tokens": "prompt_differs",
    "prompt_sha256": "prompt_differs",
    "media_sha256": "prompt_differs",
    "tokens": "tokens_differ",
    "token_ids_sha256": "tokens_differ",
    "proofs_sha256": "proofs_differ",
    "sampler": "proofs_differ",
    "seed": "proofs_differ",
    "output_sha256": "output_differs",
}
"""The reason, where the evidence has another value than the statement."""

OF_THE_WHOLE: Final = frozenset(("response_id", "created", "choice"))
"""What a choice that was kept by itself has its own of, or none."""

SAID: Final[Mapping[str, str | None]] = {"finish_reason": None, "output_sha256": digest({"text": ""})}
"""What may not have been kept of it, as it is then."""
