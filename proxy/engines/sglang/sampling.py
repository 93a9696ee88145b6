"""The options of sampling that a route of SGLang hands to the engine, as the check on tokens reads them."""

from __future__ import annotations

from typing import Any, Final

from sglang.srt.sampling.sampling_params import TOP_K_ALL

from toploc.tokens.sampling import LEAST_TEMPERATURE, Sampling

from ...channel.tag import EXTRA_ARG

NEUTRAL: Final = {
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_new_tokens": 0,
    "logit_bias": None,
    "json_schema": None,
    "regex": None,
    "ebnf": None,
    "structural_tag": None,
    "watermark": None,
}
"""Options that change logits, and their values with which they do not. SGLang's penalties and grammars are its own, and
are not replayed."""


def changes_of(request: Any) -> list[str]:
    """Names of the options of a TokenizedGenerateReqInput that change logits."""
    params = request.sampling_params
    names = [name for name, neutral in NEUTRAL.items() if (getattr(params, name, neutral) or neutral) != neutral]
    if set(params.custom_params or {}) - {EXTRA_ARG} or getattr(request, "custom_logit_processor", None):
        names.append("custom_logit_processor")
    return names


def handed_over(request: Any, asked: Sampling) -> Sampling:
    """Those of a TokenizedGenerateReqInput, whose parameters SGLang has normalized.

    At most one of top-k, top-p and min-p is replayed: SGLang's back ends apply several in orders of their own.
    """
    params = request.sampling_params
    other = changes_of(request)
    top_k = 0 if params.top_k >= TOP_K_ALL else int(params.top_k)
    greedy = top_k == 1
    cuts = [name for name, cuts in (("top_k", top_k), ("top_p", params.top_p < 1), ("min_p", params.min_p)) if cuts]
    if not greedy and len(cuts) > 1:
        other += cuts
    if not greedy and params.temperature < LEAST_TEMPERATURE:
        other.append("temperature")
    return Sampling(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=top_k,
        min_p=params.min_p,
        seed=asked.seed,
        sampler=asked.sampler,
        other=tuple(other),
    )
