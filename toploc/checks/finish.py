"""Did the answer end where the request lets it end?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..foreign import quote
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..evidence.evidence import Answer, Evidence
    from ..report import Status

COMPLETIONS_DEFAULT: Final = 16
"""`max_tokens` of a completion that does not say, in OpenAI's API and in vLLM."""

CALLS: Final = ("tool_calls", "function_call")
"""Reasons of a server that found a tool call in the answer."""

STOPPED: Final = ("stop", *CALLS)
"""Reasons of an answer that stopped by itself."""


def check_finish(
    evidence: Evidence,
    answer: Answer,
    *,
    decode: Callable[[Sequence[int], bool], str],
    eos_token_ids: Collection[int],
    prompt_tokens: int,
    context_length: int | None = None,
) -> Check:
    """Hold the end against `max_tokens`, `min_tokens`, the end-of-sequence tokens and what the request stops at.

    1. The answer has at most `max_tokens` tokens.
    2. No token before the last ends an answer, nor does a stop string that stands in what those before the last say.
    3. One that is said to end with a tool call has one, or had to have one.
    4. One that ended by `length` has `max_tokens`, or is at the end of the context. `context_length` is the server's,
       None where the verifier does not know it.
    5. Reasons other than `length` and `STOPPED` are the server's own: skipped.
    6. One that stopped has `min_tokens` at least.
    7. It stopped for a cause: its last token is the end of a sequence or one of `stop_token_ids`, or a stop string
       stands at the end of what its tokens say. A server that finds a tool call in an answer says so also where the
       answer ended by length, as in step 4.

    Reasons: `too_long`, `past_the_end`, `no_tool_call`, `too_short`, `stopped_without_cause`, `context_length`,
    `finish_reason`.
    """
    end = _End(evidence, answer, decode, eos_token_ids, prompt_tokens, context_length)
    return (
        _too_long(end)  # 1
        or _past_the_end(end)  # 2
        or _without_a_call(end)  # 3
        or _ended_by_length(end)  # 4
        or _by_another_reason(end)  # 5
        or _stopped_too_early(end)  # 6
        or _stopped_for_a_cause(end)  # 7
    )


@dataclass(frozen=True, slots=True)
class _End:
    """The end of an answer, and what the request and the verifier say of where it may be."""

    evidence: Evidence
    answer: Answer
    decode: Callable[[Sequence[int], bool], str]
    eos_token_ids: Collection[int]
    prompt_tokens: int
    context_length: int | None

    @property
    def count(self) -> int:
        return len(self.answer.token_ids)

    @property
    def max_tokens(self) -> int | None:
        request = self.evidence.request
        most = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        return COMPLETIONS_DEFAULT if most is None and self.evidence.route == "completion" else most

    @property
    def ends(self) -> set[int]:
        """Token ids that end an answer."""
        sampling = self.evidence.sampling
        return {*sampling.stop_token_ids, *(() if sampling.ignore_eos else self.eos_token_ids)}

    @property
    def at_the_limit(self) -> bool:
        """Whether not one more token was possible."""
        at_context = self.context_length is not None and self.prompt_tokens + self.count >= self.context_length
        return self.count == self.max_tokens or at_context

    def check(self, status: Status, reason: str | None, message: str) -> Check:
        answer = self.answer
        return Check(
            name="finish",
            status=status,
            choice=answer.index,
            reason=reason,
            message=message,
            figures={
                "tokens": self.count,
                "finish_reason": answer.finish_reason,
                "last_token": answer.token_ids[-1],
            },
            thresholds={
                "max_tokens": self.max_tokens,
                "min_tokens": self.evidence.sampling.min_tokens,
                "context_length": self.context_length,
            },
        )


def _too_long(end: _End) -> Check | None:
    if end.max_tokens is None or end.count <= end.max_tokens:
        return None
    return end.check("failed", "too_long", f"{end.count} tokens, at most {end.max_tokens} were asked for")


def _past_the_end(end: _End) -> Check | None:
    tokens, ends = end.answer.token_ids, end.ends
    early = next((i for i, token in enumerate(tokens[:-1]) if token in ends), None)
    if early is not None:
        return end.check("failed", "past_the_end", f"token {early} of {end.count}, {tokens[early]}, ends an answer")
    skip = end.evidence.request.skip_special_tokens is not False
    for stop in filter(None, end.evidence.stops):
        # One that is complete before `min_tokens` is none.
        first = len(end.decode(tokens[: end.evidence.sampling.min_tokens], skip)) - len(stop) + 1
        if end.decode(tokens[:-1], skip).find(stop, max(0, first)) >= 0:
            message = f"the stop string {quote(stop)} stands before the last of {end.count} tokens"
            return end.check("failed", "past_the_end", message)
    return None


def _without_a_call(end: _End) -> Check | None:
    chat = end.evidence.chat
    has_call = end.answer.restructured == "tool_calls" or (chat is not None and chat.tool_choice == "required")
    if end.answer.finish_reason not in CALLS or has_call:
        return None
    return end.check("failed", "no_tool_call", "it is said to end with a tool call, and has none")


def _ended_by_length(end: _End) -> Check | None:
    if end.answer.finish_reason != "length":
        return None
    message = f"ended by length after {end.count} tokens"
    if end.at_the_limit:
        return end.check("passed", None, message)
    if end.context_length is None:
        unknown = "this verifier does not know the server's context length"
        return end.check("undecided", "context_length", f"{message}; {unknown}")
    possible = end.max_tokens or end.context_length - end.prompt_tokens
    return end.check("failed", "too_short", f"{message}, {possible} were possible")


def _by_another_reason(end: _End) -> Check | None:
    if end.answer.finish_reason in STOPPED:
        return None
    return end.check("undecided", "finish_reason", "the server gives a reason of its own for the end")


def _stopped_too_early(end: _End) -> Check | None:
    least = end.evidence.sampling.min_tokens
    if end.count >= least:
        return None
    return end.check("failed", "too_short", f"stopped after {end.count} tokens, at least {least} were asked for")


def _stopped_for_a_cause(end: _End) -> Check:
    tokens = end.answer.token_ids
    if tokens[-1] in end.ends:
        return end.check("passed", None, f"stopped at token {tokens[-1]}")
    # A stop string may end within the last token, and begin many tokens before it.
    last = len(end.decode(tokens[-1:], False))
    texts = end.decode(tokens, True), end.decode(tokens, False)
    for stop in filter(None, end.evidence.stops):
        if any(stop in text[max(0, len(text) - len(stop) - last) :] for text in texts):
            return end.check("passed", None, "stopped at a stop string")
    if end.at_the_limit and end.answer.finish_reason in CALLS:
        return end.check("passed", None, f"a tool call, and ended by length after {end.count} tokens")
    return end.check("failed", "stopped_without_cause", f"stopped at token {tokens[-1]}, which ends nothing")
