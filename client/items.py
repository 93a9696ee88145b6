"""What the events of a stream of /v1/responses say, held against the response that its last event brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toploc.foreign import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNELS: Final = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_text": "reasoning",
    "response.reasoning_summary_text": "summary",
    "response.function_call_arguments": "arguments",
}
"""Events with a text of their own: what they are called less `.delta` or `.done`, and what it is."""

PARTS: Final = {
    "output_text": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
    "summary_text": ("summary", "text"),
}
"""Parts of items, with what their text is and where it stands."""


class Items:
    """Texts by channel as deltas, as their ends, and as whole items. Each that was given has to be the response's.

    Blanks around a text are left out of account: parsers of a whole answer and of its parts differ there. Of a stream
    that is `resumed` the events have to be how the response ends: the others came before.
    """

    def __init__(self, *, resumed: bool = False) -> None:
        self._resumed = resumed
        self._deltas: dict[str, list[str]] = {}
        self._ends: dict[str, list[str]] = {}
        self._whole: dict[str, list[str]] = {}
        self._early: list[Any] = []

    def add(self, event: dict[str, Any]) -> None:
        """Raises LookupError or TypeError for what is no such event."""
        kind = str(event["type"])
        name, _, what = kind.rpartition(".")
        channel = CHANNELS.get(name)
        if what == "delta":
            delta = event["delta"]
            self._deltas.setdefault(channel or name, []).append(delta if isinstance(delta, str) else str(delta))
        elif what == "done" and channel is not None:
            ended = event.get("text", event.get("arguments", event.get("refusal")))
            self._ends.setdefault(channel, []).append(str(ended))
        elif kind == "response.output_item.done":
            for found, text in _texts([event["item"]]):
                self._whole.setdefault(found, []).append(text)
        elif isinstance(whole := event.get("response"), dict) and whole.get("output"):
            self._early.append(whole["output"])

    def differences(self, output: object) -> Iterator[str]:
        """What was said otherwise than in the response's `output`."""
        final: dict[str, list[str]] = {}
        for channel, text in _texts(output if isinstance(output, list) else []):
            final.setdefault(channel, []).append(text)
        for said in (self._deltas, self._ends, self._whole):
            for channel, parts in said.items():
                text, whole = "".join(parts), "".join(final.get(channel, ()))
                if not self._agree(text.strip(), whole.strip()) and not self._elsewhere(channel, text, output):
                    yield f"{quote(channel)}: events say {quote(text)}, the response {quote(whole)}"
        for early in self._early:
            if early != output:
                yield "an earlier event has another output than the response"

    def _agree(self, text: str, whole: str) -> bool:
        return whole.endswith(text) if self._resumed else text == whole

    def _elsewhere(self, channel: str, text: str, output: object) -> bool:
        """Whether a text of a kind that this client does not know stands somewhere in the response."""
        return channel not in CHANNELS.values() and text.strip() in str(output)


def _texts(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Channel and text of all parts. Raises LookupError, TypeError or AttributeError for what are no items."""
    for item in items:
        if item.get("type") == "function_call":
            yield "arguments", str(item.get("arguments"))
            yield "name", str(item.get("name"))
        for listed in ("summary", "content"):
            for part in item.get(listed) or ():
                channel, place = PARTS.get(part.get("type"), ("", ""))
                if channel:
                    yield channel, str(part.get(place))
