"""Requests that two kinds of engines answer alike. Of others a verifier of one kind accuses no prover of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..tokens.masks import Constraint

if TYPE_CHECKING:
    from ..evidence.evidence import Evidence
    from ..tokens.sampling import Sampling

IN_PROMPTS: Final = (
    *("tools", "documents", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
    *("add_special_tokens", "reasoning_effort", "reasoning", "thinking", "truncate_prompt_tokens"),
)
"""Options of requests that not all engines put into a prompt in the same way. With tools that are not to be called
vLLM's prompt has them, and SGLang's has not."""

IN_TEXTS: Final = (
    *("include_stop_str_in_output", "no_stop_trim", "stop_regex", "include_reasoning", "separate_reasoning"),
    *("echo", "spaces_between_special_tokens"),
)
"""Options of requests that not all engines know, or read in the same way, and that change a text or its end."""


def renders_alike(evidence: Evidence) -> bool:
    """Whether the request's prompt is that of all engines: roles and texts."""
    if _has(evidence, IN_PROMPTS):
        return False
    messages = [] if evidence.chat is None else evidence.chat.messages
    return all(isinstance(one.get("content"), str) and one.keys() <= {"role", "content"} for one in messages)


def writes_alike(evidence: Evidence) -> bool:
    """Whether the text of an answer's tokens is that of all engines, where no parser takes it apart."""
    return not _has(evidence, IN_TEXTS)


def reports_alike(evidence: Evidence) -> bool:
    """Whether log-probabilities are. SGLang takes them after temperature and penalties, and vLLM before. What stands
    beside an `echo` is not in one order."""
    sampling = evidence.sampling
    is_changed = sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias or sampling.other
    is_plain = sampling.temperature in (0, 1) and sampling.repetition_penalty == 1 and not is_changed
    return is_plain and not _has(evidence, ("echo", "prompt_logprobs"))


def ends_alike(evidence: Evidence) -> bool:
    """Whether an answer's end is. Of `/v1/responses` SGLang takes two tokens off the limit; without a limit each engine
    has its own; and grammars end an answer with a token in one, and without in the other."""
    request, sampling = evidence.request, evidence.sampling
    is_limited = request.max_tokens is not None or request.max_completion_tokens is not None
    is_free = not sampling.other and not sampling.min_tokens
    return evidence.route != "response" and is_limited and is_free and not _has(evidence, (*IN_TEXTS, "tools"))


def draws_alike(evidence: Evidence) -> bool:
    """Whether the temperature is that of all engines. Of `/v1/responses` that name none SGLang draws at 0.7, and vLLM
    at 1 (ResponsesRequest._DEFAULT_SAMPLING_PARAMS in sglang/srt/entrypoints/openai/protocol.py)."""
    return evidence.route != "response" or evidence.source[0].get("temperature") is not None


def constraint_of_another(constraint: Constraint, sampling: Sampling, *, alike: bool = True) -> Constraint:
    """Unfollowed, where engines draw tokens in ways of their own: under masks, under a repetition penalty, which SGLang
    counts over the answer alone, and with several of top-k, top-p and min-p, which it applies in another order.
    `alike`: `draws_alike`."""
    several = (sampling.top_k > 0) + (sampling.top_p < 1) + (sampling.min_p > 0)
    is_alike = constraint.masks is None and constraint.forbidden is None
    if constraint.problem or (alike and is_alike and sampling.repetition_penalty == 1 and several < 2):
        return constraint
    return Constraint(problem="another kind of engine answered, which follows these options in its own way")


def _has(evidence: Evidence, names: tuple[str, ...]) -> bool:
    return any(evidence.source[0].get(name) is not None for name in names)
