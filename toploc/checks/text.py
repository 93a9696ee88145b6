"""Is the text what the tokens say?"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from ..protocol import num_chunks
from ..report import Check, quote
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..evidence.evidence import Answer, Evidence

CONTEXT = 8
"""Prompt tokens decoded before the answer's, since some tokenizers drop the first space of a text."""

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What stands for bytes that are no UTF-8. Engines that stream text leave out different ones of them."""


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
       tokens. One of the two is the text, up to bytes that are no text. If the prompt ends within a character, so is
       the prompt's text and the answer's together.
    3. A text that ended at one of the request's stop strings ends before it, or with it where the request wants that.
    4. With `echo` the prompt comes before it.
    5. Text whose parts were put into other fields, or left out as the request asks (`include_reasoning` false), is not
       compared: what is left of it stands in the decoded text, and the rest is skipped.

    Reasons: `text_differs`, `reasoning`, `tool_calls`, `echo`. Of a text that passed, the figure `chunk_offsets` says
    where chunks are: characters at which each begins, and at which the last ends.
    """
    request, sampling = evidence.request, evidence.sampling
    token_ids = list(answer.token_ids)
    include = bool(request.include_stop_str_in_output)
    ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids)}
    if answer.finish_reason != "length" and token_ids[-1] in ends and not include:  # 1
        token_ids.pop()
    skip = request.skip_special_tokens is not False
    before = list(prompt[-CONTEXT:])
    texts = {decode(token_ids, skip)}  # 2
    context = decode(before, skip)
    after = decode(before + token_ids, skip)
    if after.startswith(context):
        texts.add(after[len(context) :])
    if context.endswith(BROKEN):
        # vLLM's detokenizer goes on from the prompt's last whole text, and here has none (v1/engine/detokenizer.py).
        texts.add(decode([*prompt, *token_ids], skip))
    text = answer.text or ""

    def result(status: str, reason: str | None, message: str, **figures: list[int]) -> Check:
        return Check.model_validate(
            {
                "name": "text",
                "status": status,
                "choice": answer.index,
                "reason": reason,
                "message": message,
                "figures": {"characters": len(text), **figures},
            }
        )

    stands = any(_clean(text).strip() in _clean(decoded) for decoded in texts)
    if answer.restructured:  # 5
        if stands:
            message = f"the server put parts of the text into `{answer.restructured}`, which is not compared"
            return result("skipped", answer.restructured, message)
    elif request.echo and evidence.chat is not None:
        return result("skipped", "echo", "the text begins with the last message")
    else:
        starts = [""]
        if request.echo:  # 4
            whole = evidence.prompt_of(answer)
            starts = [whole] if isinstance(whole, str) else [decode(prompt, skip), decode(prompt, False)]
        stops = evidence.stops if answer.finish_reason != "length" else ()
        for start, decoded in product(starts, sorted(texts)):
            if _same(text, start, decoded, stops, include):  # 3
                sizes = _sizes(before, token_ids, lambda ids: decode(ids, skip))
                sizes += [0] * (num_chunks(len(answer.token_ids)) - len(sizes))
                offsets = _offsets(len(start), len(start + decoded), sizes, len(text))
                message = f"the text, {len(text)} characters, is what the tokens say"
                return result("passed", None, message, chunk_offsets=offsets)
        if request.include_reasoning is False and stands:  # 5
            return result("skipped", "reasoning", "parts of the text were left out, as the request asks")
    at = max(_common(_clean(text), _clean(decoded)) for decoded in texts)
    shown = max(0, at - 10)
    decoded = max(texts, key=lambda decoded: _common(_clean(text), _clean(decoded)))
    message = (
        f"the text is not what the tokens say, from character {at} on: {quote(_clean(text)[shown:])} in place of "
        f"{quote(_clean(decoded)[shown:])}"
    )
    return result("failed", "text_differs", message)


def _sizes(before: list[int], token_ids: list[int], decode: Callable[[list[int]], str]) -> list[int]:
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
