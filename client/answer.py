"""An answer as it came: what was asked and what was said, and what is known of it before anybody is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import quote
from toploc.protocol import FIELD_NAME, OPTIONS_NAME
from toploc.report import Check

from .exchange import Exchange
from .routes import is_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from toploc.protocol import ToplocProofs

    from .asked import Asked
    from .kept import Kept
    from .replays import Replays
    from .routes import Sent

SAYS_NOTHING: Final = frozenset(("queued", "in_progress", "failed", "cancelled"))
"""What a response without output says of itself that has none yet, or never."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Both bodies, and what stands for the response in the application.

    Attributes:
        exchange: None where a stream's events make no answer.
        response: what the application holds: an object of the SDK, or its stream.
        proofs: None where there are none, or none of version 1.
        sent: what was asked first; None where that is not known.
        seen: what the stream's events have shown already.
        whole: whether it came to its end.
        kept: what the server said when it was asked for the field.
    """

    exchange: Exchange | None
    response: Any
    proofs: ToplocProofs | None
    sent: Sent | None = None
    seen: tuple[Check, ...] = ()
    whole: bool = True
    kept: Kept | None = None

    @property
    def parsed(self) -> Mapping[str, Any]:
        return {} if self.exchange is None else self.exchange.parsed()

    @property
    def has_field(self) -> bool:
        return FIELD_NAME in self.parsed

    @property
    def says_nothing(self) -> bool:
        """Of a response that the server works on still, or that came to nothing; or of what no model said."""
        parsed = self.parsed
        if parsed.get("status") in SAYS_NOTHING and not parsed.get("output"):
            return True
        return self.sent is not None and self.sent.kind is None and not is_answer(parsed)

    @property
    def fetchable(self) -> str | None:
        """The id that its field is kept by, of an answer that is whole and came without. None if its request wanted
        no proofs, or it was fetched by a route that is not one of a response."""
        sent, name = self.sent, self.parsed.get("id") or self.parsed.get("request_id")
        if self.exchange is None or not self.whole or self.has_field or self.seen or not isinstance(name, str):
            return None
        if sent is not None:
            options = sent.parsed().get(OPTIONS_NAME)
            if sent.form is None or (isinstance(options, dict) and options.get("enabled") is False):
                return None
        return name

    @property
    def unproven(self) -> tuple[int, ...]:
        """Choices of which the server says that it could not prove them, beside others that it has."""
        choices = (self.proofs.choices or ()) if self.proofs is not None else ()
        lacking = tuple(choice.index for choice in choices if choice.error is not None)
        return lacking if len(lacking) < len(choices) else ()

    def asked_by(self, asked: Asked) -> Answer:
        """Of a response that was fetched: with the request that led to it."""
        if self.sent is None or self.exchange is None or self.sent.kind is not None:
            return self
        sent = replace(self.sent, body=asked.get(self.sent.fetches or str(self.parsed.get("id"))) or b"")
        return replace(self, sent=sent, exchange=Exchange(sent.body or b"null", self.exchange.response))

    def with_kept(self, kept: Kept) -> Answer:
        """With the field that its server keeps, where it does; the application's object has it then, too."""
        if self.exchange is None or kept.problem:
            return replace(self, kept=kept)
        exchange = self.exchange.with_field(kept.field)
        proofs = exchange.proofs
        if proofs is not None and hasattr(self.response, "give_proofs"):
            self.response.give_proofs(proofs)
        elif proofs is not None and (extra := getattr(self.response, "__pydantic_extra__", None)) is not None:
            extra[FIELD_NAME] = proofs
            self.response.__pydantic_fields_set__.add(FIELD_NAME)
        return replace(self, exchange=exchange, proofs=proofs, kept=kept)

    def contradictions(self, replays: Replays) -> Iterator[Check]:
        """What is wrong with it, held against its request and the answers before it."""
        sent, parsed = self.sent, self.parsed
        if not any(check.reason == "unfinished" for check in self.seen):
            yield from _against(sent, parsed)
        yield from _another(sent, parsed)
        # What is fetched may be fetched again.
        if self.exchange is not None and (sent is None or sent.kind is not None):
            yield from replays.checks(self.exchange, self.proofs, sent.at if sent is not None else None)

    def why_unproven(self) -> str:
        if self.has_field:
            return "what stands in their place is malformed"
        if self.kept is not None:
            return f"the server sent none, and gives none by the answer's id: {self.kept.problem}"
        if self.sent is not None and self.sent.kind is None:
            return "it was fetched, and its server gave none; they are not kept for ever, nor at all by other servers"
        if self.exchange is None:
            return "the stream did not come to its end"
        return "the server sent none; is it `toploc serve`?"


def _against(sent: Sent | None, response: Mapping[str, Any]) -> Iterator[Check]:
    """Whether the answer has the choices that were asked for."""
    asked = None if sent is None else sent.choices
    if asked is None:
        return
    choices = response.get("choices")
    indices = [c.get("index") if isinstance(c, dict) else None for c in choices] if isinstance(choices, list) else []
    if sorted(i for i in indices if type(i) is int) != [*range(asked)] or len(indices) != asked:
        message = (
            f"{asked} choices were asked for, and their numbers are {quote(', '.join(map(str, indices)) or 'none')}"
        )
        yield Check(name="response", status="failed", reason="choices", message=message)


def _another(sent: Sent | None, response: Mapping[str, Any]) -> Iterator[Check]:
    """Whether the response that was fetched is the one that was to be."""
    if sent is not None and sent.fetches not in (None, response.get("id")):
        message = f"another response than the one that was fetched: {quote(str(response.get('id')))}"
        yield Check(name="response", status="failed", reason="replayed", message=message)
