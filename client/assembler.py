"""The answer that a stream's events add up to, in time and memory linear in them, whatever they say.

An application acts on events as they come; what is verified is one object. So every leaf of every event goes into that
object, or has to agree with it: what does neither is a contradiction, of which `problems` tells.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import quote
from toploc.protocol import FIELD_NAME
from toploc.report import Check

from .fields import Fields
from .items import Items
from .merging import Disagreement, Merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .routes import Sent

MAX_CHARACTERS: Final = 64 * 2**20
"""Of all events of a stream. Stops a server that fills the memory of its client."""

MAX_CHOICES: Final = 10_000
"""Where the request does not tell how many choices it asks for."""

CHOOSING: Final = ("chat", "completion", "generate")
"""Kinds of routes whose answers are choices."""

OBJECTS: Final = {"chat.completion.chunk": "chat.completion"}
"""Of events, and of what they add up to."""

ENDS: Final = ("response.completed", "response.incomplete")
"""Events that bring a whole response."""


class Assembler:
    """Takes the events of a stream of any route that generates; of others it notes that something was said."""

    def __init__(self, sent: Sent) -> None:
        self._kind = sent.form
        self._asked = sent.choices
        self.fields = Fields()
        self.problems: list[Check] = []
        self.ended = False
        """Whether the event has come after which nothing more is said."""
        self.response_id = ""
        """Of a response of /v1/responses, once an event has named it."""
        self.done: set[int] = set()
        """Choices that have ended."""
        self.empty = True
        self._begun: set[int] = set()
        self._size = 0
        self._top = Merged(grows=False)
        self._choices: dict[int, Merged] = {}
        self._items = Items(resumed=sent.kind is None)
        self._final: dict[str, Any] | None = None

    @property
    def limit(self) -> int:
        """Of choices, and so of fields."""
        return self._asked if self._asked is not None else MAX_CHOICES if self._kind in CHOOSING else 1

    @property
    def settled(self) -> bool:
        """Whether every choice that has begun has ended, with proofs or an error in their place."""
        if self._kind == "response":
            return self._final is not None
        proven = self.fields.merged is not None or self.fields.junk is not None
        return proven and bool(self.done) and self.done >= self._begun

    @property
    def whole(self) -> bool:
        """Whether it has ended, and every choice that has begun before it."""
        return self.ended and bool(self.done) and self.done >= self._begun

    @property
    def unproven(self) -> bool:
        """Whether a choice has ended without its field."""
        return len(self.fields) < len(self.done) and self.fields.junk is None

    def add(self, data: str) -> None:
        """The data of an event."""
        if data.startswith("[DONE]"):
            self.ended = True
            return
        self.empty = False
        self._size += len(data)
        if self._size > MAX_CHARACTERS:
            self._problem("too_large", f"the stream is longer than {MAX_CHARACTERS:,} characters", accuses=False)
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            self._problem("malformed_event", f"an event is no JSON: {quote(data)}")
            return
        if not isinstance(event, dict):
            self._problem("malformed_event", f"an event is no object: {quote(data)}")
            return
        if self.ended:
            self._problem("after_end", f"an event came after the last: {quote(data)}")
            return
        try:
            self._add(event)
        except Disagreement as error:
            self._problem("events_disagree", str(error))
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
            self._problem("malformed_event", f"an event is none of this route: {quote(data)}")

    def end(self) -> None:
        """No more events come. An answer with proofs of a part has broken off; one without has no proofs."""
        if not self.settled and not self.ended and (self.fields.merged is not None or self.fields.junk is not None):
            self._problem("unfinished", "the stream did not come to its end", accuses=False)

    def _add(self, event: dict[str, Any]) -> None:
        match self._kind:
            case "chat" | "completion" | "generate":
                self._add_choices(event)
            case "response":
                self._add_response(event)
            case "message":
                self._add_message(event)

    def response(self) -> dict[str, Any] | None:
        """The whole answer; None if the events make none."""
        match self._kind:
            case "chat" | "completion" if self._choices:
                made = self._top.value()
                made["object"] = OBJECTS.get(made.get("object", ""), made.get("object"))
                made["choices"] = [_choice(self._choices[index].value()) for index in sorted(self._choices)]
            case "generate" if self._choices:
                made = self._top.value()
                made["choices"] = [self._choices[index].value() for index in sorted(self._choices)]
            case "response" if self._final is not None:
                made = dict(self._final)
            case "message" if self.done:
                made = self._top.value()
                made["content"] = [self._choices[index].value() for index in sorted(self._choices)]
                for part in made["content"]:
                    if isinstance(arguments := part.pop("partial_json", None), str):
                        part["input"] = _parsed(arguments)
            case _:
                return None
        made.pop(FIELD_NAME, None)
        if self.fields.junk is not None:
            made[FIELD_NAME] = self.fields.junk
        elif (proofs := self.fields.merged) is not None:
            made[FIELD_NAME] = proofs.model_dump(mode="json", exclude_none=True)
        return made

    def _add_choices(self, event: dict[str, Any]) -> None:
        """Of chat completions, completions, and tokens for tokens."""
        value = event.pop(FIELD_NAME, None)
        listed = event.pop("choices", None)
        usage = event.pop("usage", None)
        self._top.add(event)
        if usage is not None:  # with `continuous_usage_stats` each is about what came so far
            self._top.replace("usage", usage)
        ended = []
        for choice in listed if isinstance(listed, list) else [] if listed is None else [listed]:
            index = choice.get("index", 0)
            if type(index) is not int or not 0 <= index < self.limit:
                self._problem(
                    "choices", f"a choice has number {quote(str(index))}, of {self.limit} that were asked for"
                )
                continue
            delta = choice.get("delta")
            spoken = {name: value for name, value in choice.items() if name not in ("index", "delta")}
            if index in self.done and (any(_said(v) for v in spoken.values()) or _said(delta)):
                self._problem("after_end", f"choice {index} went on after its end")
            self._begun.add(index)
            known = self._choices.get(index)
            if known is None:
                known = self._choices[index] = Merged()
                known.add({"index": index})
            known.add(spoken, texts=("text",))
            if isinstance(delta, dict):
                known.into("delta", delta)
            elif delta is not None:
                raise TypeError
            if choice.get("finish_reason") is not None:
                self.done.add(index)
                ended.append(index)
        if value is not None:
            self._field(value, ended)

    def _add_response(self, event: dict[str, Any]) -> None:
        name, whole = event.get("type"), event.get("response")
        value = event.pop(FIELD_NAME, None)
        if isinstance(whole, dict):
            value = whole.get(FIELD_NAME, value)
            self.response_id = self.response_id or str(whole.get("id", ""))
        if name in ENDS and isinstance(whole, dict):
            if self._final is not None:
                self._problem("second_end", "the stream has a second last event")
                return
            self._final = {name: part for name, part in whole.items() if name != FIELD_NAME}
            self.ended = True
            self.done.add(0)
            for problem in self._items.differences(whole.get("output")):
                self._problem("events_disagree", problem)
            if value is not None:
                self._field(value, [0])
        else:
            if value is not None:
                self._problem("field_misplaced", f"an event {quote(str(name))} has proofs, which end a response alone")
            self._begun.add(0)
            self._items.add(event)

    def _add_message(self, event: dict[str, Any]) -> None:
        value = event.pop(FIELD_NAME, None)
        index = event.get("index")
        match event.get("type"):
            case "message_start":
                self._begun.add(0)
                started = dict(event["message"])
                usage = started.pop("usage", None)
                started.pop("content", None)
                self._top.add(started)
                self._top.replace("usage", usage)
            case "content_block_start" if (
                type(index) is int and 0 <= index < MAX_CHOICES and index not in self._choices
            ):
                self._choices[index] = Merged()
                self._choices[index].add(event["content_block"], texts=("text", "thinking", "signature"))
            case "content_block_delta" if isinstance(index, int):
                delta = {name: part for name, part in event["delta"].items() if name != "type"}
                self._choices[index].add(delta, texts=("text", "thinking", "signature", "partial_json"))
            case "message_delta":
                self._top.add(event["delta"])
                usage = self._top.value().get("usage")
                if isinstance(event.get("usage"), dict):
                    self._top.replace("usage", {**(usage if isinstance(usage, dict) else {}), **event["usage"]})
                self.done.add(0)
                if value is not None:
                    self._field(value, [0])
                    value = None
            case "message_stop":
                self.ended = True
            case "content_block_stop" | "ping":
                pass
            case _:
                raise TypeError
        if value is not None:
            self._problem("field_misplaced", "an event has proofs that does not end the message")

    def _opens(self, index: object) -> bool:
        """Whether a block of a message begins that has not."""
        return type(index) is int and 0 <= index < MAX_CHOICES and index not in self._choices

    def _field(self, value: object, ended: list[int]) -> None:
        if self.fields.count >= self.limit:
            self._problem("choices", f"more proofs than the {self.limit} choices that were asked for")
            return
        differs = self.fields.add(value, ended)
        if differs is not None:
            self._problem("events_disagree", f"two events have other proofs of choice {differs}")

    def _problem(self, reason: str, message: str, *, accuses: bool = True) -> None:
        """The first of its kind: there may be one in each event."""
        if all(known.reason != reason for known in self.problems):
            status: Any = "failed" if accuses else "undecided"
            self.problems.append(Check(name="response", status=status, reason=reason, message=message))


def _choice(merged: dict[str, Any]) -> dict[str, Any]:
    if "delta" in merged:
        merged["message"] = merged.pop("delta")
    elif "text" not in merged:
        merged["message"] = {}
    return merged


def _said(value: object) -> bool:
    """Whether anything is in it but empty texts, lists and nulls."""
    if isinstance(value, dict):
        return any(_said(part) for part in value.values())
    return value not in (None, "", [])


def _parsed(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def whole(response: Mapping[str, Any]) -> bytes:
    """In JSON; ASCII, since halves of a surrogate pair have no other form."""
    return json.dumps(response).encode()
