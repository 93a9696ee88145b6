"""A request and its response, as bytes to be stored and verified; the field `toploc_proofs` as a typed one."""

from __future__ import annotations

import contextlib
import json
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ValidationError

from toploc.errors import ToplocError
from toploc.protocol import FIELD_NAME, ToplocProofs
from toploc.receipts.request import evidence_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_BODY: Final = ("extra_body", "extra_headers", "extra_query", "timeout")
"""Arguments of the SDK's methods that are no part of a body."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Both bodies in JSON. Headers, and so API keys, are in neither. `exact`: the request's are the bytes that were
    sent."""

    request: bytes
    response: bytes
    exact: bool = True

    @classmethod
    def of(cls, request: Mapping[str, Any], response: Any) -> Self:
        """Of what the SDK was called with, `extra_body` included, or the body itself; and of its object or a mapping.

        Raises ToplocError for what JSON cannot say.
        """
        body = {name: value for name, value in request.items() if name not in NOT_BODY}
        body |= request.get("extra_body") or {}
        if isinstance(response, BaseModel):
            response = response.model_dump(mode="json", by_alias=True, exclude_unset=True)
        try:
            asked, answer = (json.dumps(value, ensure_ascii=False).encode() for value in (body, response))
        except (TypeError, ValueError, RecursionError) as error:
            raise ToplocError(f"request or response: cannot be written as JSON: {error}") from None
        return cls(asked, answer, exact=False)

    @classmethod
    def read(cls, request: bytes, response: bytes) -> Self:
        """Of bodies as they came. A response in another encoding than UTF-8, which the SDK reads too, is put into it;
        one that is no JSON is kept as a text, so that evidence stays JSON."""
        try:
            parsed = json.loads(response)
            response.decode()
            if isinstance(parsed, dict) and response.lstrip().startswith(b"{"):
                return cls(request or b"null", response)
        except (ValueError, RecursionError):
            parsed = response.decode(errors="replace")
        return cls(request or b"null", json.dumps(parsed).encode())

    @property
    def evidence(self) -> bytes:
        if self.exact:
            return evidence_of(self.request, self.response)
        return b'{"request": ' + self.request + b', "response": ' + self.response + b"}"

    @property
    def proofs(self) -> ToplocProofs | None:
        """None if there are none, or none of version 1."""
        try:
            return ToplocProofs.model_validate(self.parsed()[FIELD_NAME])
        except (ValidationError, LookupError, RecursionError):
            return None

    def with_field(self, field: Any) -> Exchange:
        """With the proofs in the response, which has none."""
        return replace(self, response=json.dumps({**self.parsed(), FIELD_NAME: field}).encode())

    def parsed(self) -> Mapping[str, Any]:
        """The response; empty if it is no object."""
        try:
            response = json.loads(self.response)
        except (ValueError, RecursionError):
            return {}
        return response if isinstance(response, dict) else {}


def typed(value: object) -> ToplocProofs | None:
    """The field of an object of the SDK, which is made a typed one in place; None if there is none.

    A field that is not of version 1 is left as it came: verifiers say what is wrong with it.
    """
    extra = getattr(value, "__pydantic_extra__", None)
    if not extra or FIELD_NAME not in extra:
        return None
    field = extra[FIELD_NAME]
    if isinstance(field, dict):
        with contextlib.suppress(ValidationError, RecursionError):
            extra[FIELD_NAME] = field = ToplocProofs.model_validate(field)
    return field if isinstance(field, ToplocProofs) else None


class Memory:
    """Which exchange an object of the SDK came of, for as long as the object lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Exchange]] = {}

    def remember(self, value: object, exchange: Exchange) -> None:
        key = id(value)
        with contextlib.suppress(TypeError):  # no object: a text that is no JSON
            self._known[key] = (weakref.ref(value, lambda _: self._known.pop(key, None)), exchange)

    def recall(self, value: object) -> Exchange:
        """Raises ToplocError for what came of no exchange here."""
        reference, exchange = self._known.get(id(value), (None, None))
        if reference is None or exchange is None or reference() is not value:
            raise ToplocError("response: not one of this client's; give the request too: verify(request, response)")
        return exchange
