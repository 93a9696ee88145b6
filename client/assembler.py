"""The response that a stream's events add up to, as the SDK puts it together."""

from __future__ import annotations

import json
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from toploc.protocol import FIELD_NAME, ToplocProofs

from .exchange import Exchange, merged, typed


class Assembler:
    """Takes events of a stream of chat completions, completions or responses; others leave it empty.

    `keep`: whether the response is wanted, or its proofs alone.
    """

    def __init__(self, request: bytes, *, keep: bool) -> None:
        self._request = request
        self.keep = keep
        self._fields: list[ToplocProofs] = []
        self._chat: ChatCompletionStreamState[None] | None = None
        self._texts: dict[str, Any] | None = None
        self._final: Any = None
        self.proofs: ToplocProofs | None = None
        self.open: set[int] = set()
        """Choices that have begun and not ended; known only where the response is wanted."""

    def add(self, event: Any) -> None:
        # Not getattr: where there is none, pydantic takes as long to say so as the SDK for half an event.
        holder = getattr(event, "__dict__", {}).get("response") or event
        if (field := typed(holder)) is not None:
            self._fields.append(field)
            self.proofs = merged(self._fields)
        if not self.keep:
            return
        if isinstance(event, ChatCompletionChunk):
            self._note(event)
            if self._chat is None:
                self._chat = ChatCompletionStreamState()
            self._chat.handle_chunk(event)
        elif isinstance(event, Completion):
            self._note(event)
            self._add_text(event)
        elif getattr(event, "type", None) in ("response.completed", "response.incomplete"):
            self._final = holder

    @property
    def settled(self) -> bool:
        """Whether every choice that has begun has ended, with proofs or an error in their place."""
        return bool(self._fields) and not self.open

    def exchange(self) -> Exchange | None:
        """The request and the whole response; None if the events make none."""
        response: dict[str, Any] | None = self._texts
        if self._final is not None:
            response = self._final.model_dump(mode="json", exclude_unset=True)
        elif self._chat is not None:
            # Not `get_final_completion`, which refuses answers that ended by length.
            response = self._chat.current_completion_snapshot.model_dump(mode="json", exclude_none=True)
        if response is None:
            return None
        response.pop(FIELD_NAME, None)
        if self.proofs is not None:
            response[FIELD_NAME] = self.proofs.model_dump(mode="json", exclude_none=True)
        return Exchange(self._request, json.dumps(response, ensure_ascii=False).encode())

    def _note(self, event: Any) -> None:
        for choice in event.choices:
            if choice.finish_reason is None:
                self.open.add(choice.index)
            else:
                self.open.discard(choice.index)

    def _add_text(self, event: Any) -> None:
        if self._texts is None:
            head = event.model_dump(mode="json", include={"id", "object", "created", "model"})
            self._texts = {**head, "choices": []}
        choices = self._texts["choices"]
        for choice in event.choices:
            place = next((i for i, known in enumerate(choices) if known["index"] >= choice.index), len(choices))
            if place == len(choices) or choices[place]["index"] != choice.index:
                choices.insert(place, {"index": choice.index, "text": "", "finish_reason": None})
            choices[place]["text"] += choice.text
            if choice.finish_reason is not None:
                choices[place]["finish_reason"] = choice.finish_reason
