"""The options of sampling that the server's route hands to the engine, as the check on tokens reads them.

A route turns many fields of a request into few of `SamplingParams`: a named tool, a strict one and a JSON schema all
become a grammar. So what the engine is handed decides whether tokens can be replayed, and no name in the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from toploc.tokens.sampling import Sampling

from ...channel.tag import EXTRA_ARG

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams

OPTIONS: Final = tuple(Sampling.model_fields.keys() - {"seed", "sampler", "other"})
"""Fields that `Sampling` and `SamplingParams` have under one name."""

WATERMARKING: Final = "watermarking"

CONSTRAINTS: Final = (
    "structured_outputs",
    "allowed_token_ids",
    "bad_words",
    "thinking_token_budget",
    WATERMARKING,
    "logits_processors",
)
"""Fields of `SamplingParams`, of any version of vLLM, that change which tokens may be chosen, beside the options."""

TRANSFERS: Final = frozenset((EXTRA_ARG, "kv_transfer_params", "ec_transfer_params"))
"""Extra arguments that say where rows come from. All others are for processors of logits."""

BEFORE_THE_ENGINE: Final = frozenset(("use_beam_search",))
"""Constraints that a route carries out by itself, with calls of the engine that do not show them."""


def handed_over(params: SamplingParams, asked: Sampling, *, watermarks: bool = False) -> Sampling:
    """The options of `params`, with the seed and the sampler of `asked`, which is read from the request itself.

    With `watermarks` the engine has them, and a request that says nothing of them gets them (`watermarking` None of
    SamplingParams, vLLM 0.30 on).

    Raises pydantic's ValidationError for options that vLLM would refuse.
    """
    given: dict[str, Any] = {name: getattr(params, name) for name in OPTIONS if getattr(params, name, None) is not None}
    named = [
        *constraints_of(params, watermarks=watermarks),
        *(name for name in asked.other if name in BEFORE_THE_ENGINE),
    ]
    return Sampling.model_validate({**given, "seed": asked.seed, "sampler": asked.sampler, "other": tuple(named)})


def constraints_of(params: SamplingParams, *, watermarks: bool = False) -> tuple[str, ...]:
    """Names of the constraints that the engine is handed: those that are not off, and the arguments of processors."""
    named = [name for name in CONSTRAINTS if getattr(params, name, None)]
    if watermarks and getattr(params, WATERMARKING, None) is None:
        named.append(WATERMARKING)
    return (*named, *sorted((params.extra_args or {}).keys() - TRANSFERS))
