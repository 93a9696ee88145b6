"""Did the answer end where the request lets it end?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..evidence.evidence import Answer, Evidence

COMPLETIONS_DEFAULT = 16
"""`max_tokens` of a completion that does not say, in OpenAI's API and in vLLM."""

CALLS = ("tool_calls", "function_call")
STOPPED = ("stop", *CALLS)


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
    2. No token before the last, and none before `min_tokens`, ends an answer.
    3. One that ended by `length` has `max_tokens`, or is at the end of the context. `context_length` is the server's,
       None where the verifier does not know it.
    4. One that stopped has a cause: its last token is the end of a sequence or one of `stop_token_ids`, or a stop
       string stands at the end of what its tokens say. It has `min_tokens` at least. A server that finds a tool call
       in an answer says so also where the answer ended by length, as in step 3.
    5. Other reasons are the server's own.

    Reasons: `too_long`, `past_the_end`, `too_short`, `stopped_without_cause`, `context_length`, `finish_reason`.
    """
    request, sampling, tokens = evidence.request, evidence.sampling, answer.token_ids
    count = len(tokens)
    most = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    if most is None and evidence.chat is None:
        most = COMPLETIONS_DEFAULT

    def result(status: str, reason: str | None, message: str) -> Check:
        return Check.model_validate(
            {
                "name": "finish",
                "status": status,
                "choice": answer.index,
                "reason": reason,
                "message": message,
                "figures": {"tokens": count, "finish_reason": answer.finish_reason, "last_token": tokens[-1]},
                "thresholds": {"max_tokens": most, "min_tokens": sampling.min_tokens, "context_length": context_length},
            }
        )

    if most is not None and count > most:  # 1
        return result("failed", "too_long", f"{count} tokens, at most {most} were asked for")
    ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids)}
    early = next((i for i, token in enumerate(tokens[:-1]) if token in ends), None)
    if early is not None:  # 2
        return result("failed", "past_the_end", f"token {early} of {count}, {tokens[early]}, ends an answer")
    if answer.finish_reason == "length":  # 3
        if count == most or (context_length is not None and prompt_tokens + count >= context_length):
            return result("passed", None, f"ended by length after {count} tokens")
        if context_length is None:
            message = f"ended by length after {count} tokens; this verifier does not know the server's context length"
            return result("skipped", "context_length", message)
        message = f"ended by length after {count} tokens, {most or context_length - prompt_tokens} were possible"
        return result("failed", "too_short", message)
    if answer.finish_reason not in STOPPED:  # 5
        return result("skipped", "finish_reason", "the server gives a reason of its own for the end")
    if count < sampling.min_tokens:  # 4
        return result(
            "failed", "too_short", f"stopped after {count} tokens, at least {sampling.min_tokens} were asked for"
        )
    if tokens[-1] in ends:
        return result("passed", None, f"stopped at token {tokens[-1]}")
    # A stop string may end within the last token, and begin many tokens before it.
    last = len(decode(tokens[-1:], False))
    said = decode(tokens, True), decode(tokens, False)
    for stop in filter(None, evidence.stops):
        if any(stop in text[max(0, len(text) - len(stop) - last) :] for text in said):
            return result("passed", None, "stopped at a stop string")
    cut = count == most or (context_length is not None and prompt_tokens + count >= context_length)
    if cut and answer.finish_reason in CALLS:
        return result("passed", None, f"a tool call, and ended by length after {count} tokens")
    return result("failed", "stopped_without_cause", f"stopped at token {tokens[-1]}, which ends nothing")
