"""What a verifier without an engine can rehearse itself: plain chats and completions.

It knows no parser and no template of a server's, so it cannot tell what stands in tool calls, reasoning or
log-probabilities, nor what a server makes of a response or a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..checks.response import Rehearsed, compared
from ..evidence.forms import Forms, is_other
from ..evidence.leaves import OF_THE_ENGINE, WEIGHT_VERSIONS, has_several_weights
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..evidence.evidence import Answer, Evidence
    from .judge import Computed

UNBOUND: Final = OF_THE_ENGINE.union(
    """choices[].message.tool_calls choices[].message.function_call choices[].message.reasoning
    choices[].message.reasoning_content choices[].logprobs choices[].prompt_logprobs prompt_logprobs prompt_text
    usage.completion_tokens_details usage.prompt_tokens_details mm_placeholders""".split()  # noqa: SIM905
)
"""What servers write that only they can tell."""


def rehearse(
    evidence: Evidence,
    computed: Sequence[Computed | Check],
    checks: Collection[Check],
    eos_token_ids: Collection[int],
) -> list[Rehearsed]:
    """Compare the response with what its tokens, and the checks on text and end that have passed, say of it.

    A text or an end whose check has not passed is not bound here.
    """
    if evidence.route not in ("chat", "batch", "completion", "generate"):
        problem = f"a verifier without an engine cannot tell what a server makes of a {evidence.route}"
        return [Rehearsed(problem=problem)]
    if not evidence.answers:
        return [Rehearsed(problem="there are no tokens with proofs")]
    passed = {(check.name, check.choice) for check in checks if check.status == "passed"}
    claimed = evidence.source[1]
    listed = {choice["index"]: choice for choice in claimed["choices"]}
    unbound, choices, prompts = set(UNBOUND), [], []
    for answer, entry in zip(evidence.answers, computed, strict=True):
        if answer.index in evidence.unproven:
            continue
        if isinstance(entry, Check):
            return [Rehearsed(problem=entry.message)]
        prompts.append(entry.prompt)
        seen = listed[answer.index]
        choice: dict[str, Any] = {"index": answer.index}
        text, place = choice, "text"
        if evidence.chat is not None:
            choice["message"] = text = _message(evidence, answer)
            place = "content"
        if ("text", answer.index) in passed:
            text[place] = answer.text
        elif evidence.says_text:
            unbound.add("choices[].text" if evidence.chat is None else "choices[].message.content")
        if ("finish", answer.index) in passed:
            choice["finish_reason"] = answer.finish_reason
            choice["stop_reason"] = _stop_reason(evidence, answer, seen, eos_token_ids)
        else:
            unbound |= {"choices[].finish_reason", "choices[].stop_reason"}
        choices.append({**choice, **_ids(evidence, answer, entry.prompt, seen, unbound)})
    response: dict[str, Any] = {"object": claimed.get("object"), "choices": choices}
    if claimed.get("output_mode") is not None:
        response["output_mode"] = "text" if evidence.says_text else "tokens"
    if evidence.source[0].get("return_token_ids") and evidence.route in ("chat", "generate"):
        response["prompt_token_ids"] = list(prompts[0]) if prompts else None
    if claimed.get("usage") is not None:
        response["usage"] = _usage(evidence, prompts)
    return compared(evidence, response, unbound=unbound, forms=Forms(other=is_other(evidence.proofs.engine, None)))


def _ids(
    evidence: Evidence, answer: Answer, prompt: Sequence[int], seen: Mapping[str, Any], unbound: set[str]
) -> dict[str, Any]:
    """Token ids in a choice. An answer of tokens always has its own, and says which weights made them."""
    if evidence.route == "generate":
        ids: dict[str, Any] = {"token_ids": list(answer.token_ids)}
        if has_several_weights(seen):
            unbound.add(WEIGHT_VERSIONS)
        elif seen.get("weight_versions"):
            ids["weight_versions"] = [{"start": 0, "end": len(answer.token_ids)}]
        return ids
    if not evidence.source[0].get("return_token_ids"):
        return {}
    return {
        "token_ids": list(answer.token_ids),
        "prompt_token_ids": list(prompt) if evidence.chat is None else None,
    }


def _message(evidence: Evidence, answer: Answer) -> dict[str, Any]:
    """The server speaks as itself, or goes on as whoever spoke last."""
    goes_on = evidence.chat is not None and evidence.chat.add_generation_prompt is False
    return {"role": evidence.messages_of(answer)[-1].get("role") if goes_on else "assistant"}


def _stop_reason(
    evidence: Evidence, answer: Answer, seen: Mapping[str, Any], eos_token_ids: Collection[int]
) -> str | int | None:
    """The stop string or token. Of several ends of a sequence, engines name those that are not the tokenizer's."""
    reason: str | int | None = seen.get("stop_reason", seen.get("matched_stop"))
    if answer.finish_reason == "length":
        return None
    last = answer.token_ids[-1]
    if last in eos_token_ids and not evidence.sampling.ignore_eos:
        return last if reason == last and type(reason) is int else None
    if last in evidence.sampling.stop_token_ids:
        return last
    return reason if reason in evidence.stops else next(iter(evidence.stops), None)


def _usage(evidence: Evidence, prompts: Sequence[Sequence[int]]) -> dict[str, int]:
    asked = sum(len(prompt) for prompt in prompts[:: evidence.choices_per_prompt])
    made = sum(len(answer.token_ids) for answer in evidence.answers)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}
