"""Is the text what the tokens say?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from ..evidence.unfinished import BROKEN, unfinished
from ..foreign import quote
from ..protocol import num_chunks
from ..report import Check
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Answer, Evidence
    from ..report import Status

CONTEXT: Final = 8
"""Prompt tokens decoded before the answer's, since some tokenizers drop the first space of a text."""


def check_text(
    evidence: Evidence,
    answer: Answer,
    prompt: Sequence[int],
    *,
    decode: Callable[[Sequence[int], bool], str],
    eos_token_ids: Collection[int],
) -> Check:
    """Decode the token ids and compare.

    1. The token that ended the answer is not part of its text, unless the request wants it there.
    2. Decode the ids, alone and after the end of the prompt; `decode` takes ids and whether to leave out special
       tokens. If the prompt ends within a character, so is the prompt's text and the answer's together.
    3. An answer without tools has no tool calls. Text whose parts were put into other fields is not compared: what is
       left of it stands in the decoded text, and the rest is skipped.
    4. With `echo` the prompt comes before the text, or of a chat its last message, if that is by the one who speaks.
    5. One of the decoded texts is the text, up to bytes that are no text, and up to what engines leave out of an end
       within a character. A text that ended at one of the request's
       stop strings ends before it, or with it where the request wants that.
    6. Text of which parts were left out, as the request asks (`include_reasoning` false), is skipped as in step 3.

    Reasons: `text_differs`, `tool_calls`, `reasoning`. Of a text that passed, the figure `chunk_offsets` says
    where chunks are: characters at which each begins, and at which the last ends.
    """
    token_ids = shown_tokens(evidence, answer, eos_token_ids)  # 1
    said = _Said(evidence, answer, prompt, token_ids, decode)
    texts = _decoded(said)  # 2
    return (
        _restructured(said, texts)  # 3
        or _is_said(said, texts)  # 4, 5
        or _without_reasoning(said, texts)  # 6
        or _differs(said, texts)
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What an answer says: its text, and `token_ids`, those of its tokens that are to be in it."""

    evidence: Evidence
    answer: Answer
    prompt: Sequence[int]
    token_ids: list[int]
    decoder: Callable[[Sequence[int], bool], str]

    @property
    def text(self) -> str:
        return self.answer.text or ""

    @property
    def context(self) -> list[int]:
        """The end of the prompt."""
        return list(self.prompt[-CONTEXT:])

    def decode(self, token_ids: Sequence[int]) -> str:
        """With or without special tokens, as the request has it."""
        return self.decoder(token_ids, self.evidence.request.skip_special_tokens is not False)

    def check(self, status: Status, reason: str | None, message: str, **figures: JsonValue) -> Check:
        return Check(
            name="text",
            status=status,
            choice=self.answer.index,
            reason=reason,
            message=message,
            figures={"characters": len(self.text), **figures},
        )


def shown_tokens(evidence: Evidence, answer: Answer, eos_token_ids: Collection[int]) -> list[int]:
    """The tokens of an answer that are to be in its text."""
    sampling, token_ids = evidence.sampling, list(answer.token_ids)
    ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids)}
    included = evidence.request.include_stop_str_in_output
    if answer.finish_reason != "length" and token_ids[-1] in ends and not included:
        token_ids.pop()
    return token_ids


def _decoded(said: _Said) -> set[str]:
    texts = {said.decode(said.token_ids)}
    context = said.decode(said.context)
    after = said.decode(said.context + said.token_ids)
    if after.startswith(context):
        texts.add(after[len(context) :])
    if context.endswith(BROKEN):
        # vLLM's detokenizer goes on from the prompt's last whole text, and here has none (v1/engine/detokenizer.py).
        texts.add(said.decode([*said.prompt, *said.token_ids]))
    end = unfinished(said.token_ids, said.decode)
    return texts | {text.removesuffix(end) for text in texts}


def _stands(said: _Said, texts: set[str]) -> bool:
    return any(_clean(said.text).strip() in _clean(decoded) for decoded in texts)


def _restructured(said: _Said, texts: set[str]) -> Check | None:
    field, chat = said.answer.restructured, said.evidence.chat
    if not field:
        return None
    if field == "tool_calls" and chat is not None and not chat.tools:
        return said.check("failed", field, "the request has no tools that the answer could call")
    if not _stands(said, texts):
        return _differs(said, texts)
    return said.check("skipped", field, f"the server put parts of the text into `{field}`, which is not compared")


def _is_said(said: _Said, texts: set[str]) -> Check | None:
    evidence, answer, text = said.evidence, said.answer, said.text
    included = bool(evidence.request.include_stop_str_in_output)
    stops = evidence.stops if answer.finish_reason != "length" else ()
    for start, decoded in product(_starts(said), sorted(texts)):
        if _same(text, start, decoded, stops, included):
            sizes = _sizes(said.context, said.token_ids, said.decode)
            sizes += [0] * (num_chunks(len(answer.token_ids)) - len(sizes))
            offsets: list[JsonValue] = [*_offsets(len(start), len(start + decoded), sizes, len(text))]
            message = f"the text, {len(text)} characters, is what the tokens say"
            return said.check("passed", None, message, chunk_offsets=offsets)
    return None


def _starts(said: _Said) -> list[str]:
    """What may come before the answer's own text."""
    if not said.evidence.request.echo:
        return [""]
    chat = said.evidence.chat
    if chat is None:
        prompt = said.evidence.prompt_of(said.answer)
        return [prompt] if isinstance(prompt, str) else [said.decode(said.prompt), said.decoder(said.prompt, False)]
    last = said.evidence.messages_of(said.answer)[-1]
    if chat.add_generation_prompt is not False and last.get("role") != "assistant":
        return [""]
    content = last.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return [str(content)]


def _without_reasoning(said: _Said, texts: set[str]) -> Check | None:
    if said.evidence.request.include_reasoning is not False or not _stands(said, texts):
        return None
    return said.check("skipped", "reasoning", "parts of the text were left out, as the request asks")


def _differs(said: _Said, texts: set[str]) -> Check:
    text = _clean(said.text)
    decoded = max(map(_clean, texts), key=lambda decoded: _common(text, decoded))
    at = _common(text, decoded)
    shown = max(0, at - 10)
    message = (
        f"the text is not what the tokens say, from character {at} on: {quote(text[shown:])} in place of "
        f"{quote(decoded[shown:])}"
    )
    return said.check("failed", "text_differs", message)


def _sizes(before: list[int], token_ids: list[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """Characters of each chunk, decoded after the one before it. One that chunks share belongs to the later."""
    sizes = []
    for first in range(0, len(token_ids), CHUNK_SIZE):
        chunk = token_ids[first : first + CHUNK_SIZE]
        text = decode(before + chunk)
        if first + CHUNK_SIZE < len(token_ids):
            text = text.rstrip(BROKEN)
        sizes.append(max(0, len(text) - len(decode(before).rstrip(BROKEN))))
        before = chunk
    return sizes


def _offsets(begin: int, end: int, sizes: Sequence[int], length: int) -> list[int]:
    """From the end on, since what a tokenizer does to the first space of a text is the first chunk's."""
    offsets = [end]
    for size in reversed(sizes):
        offsets.append(max(begin, offsets[-1] - size))
    offsets[-1] = begin
    return [min(offset, length) for offset in reversed(offsets)]


def _same(text: str, start: str, decoded: str, stops: Sequence[str], include: bool) -> bool:
    if not text.startswith(start):
        return False
    rest = text[len(start) :]
    if rest == decoded or (BROKEN in decoded and _clean(rest) == _clean(decoded)):
        return True
    for stop in stops:
        body = rest.removesuffix(stop) if include else rest
        if stop and (not include or rest.endswith(stop)) and _clean(decoded).startswith(_clean(body + stop)):
            return True
    return False


def _clean(text: str) -> str:
    return text.replace(BROKEN, "")


def _common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
