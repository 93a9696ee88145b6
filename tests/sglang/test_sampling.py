"""The options that a verifier replays, of those that SGLang has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from toploc.tokens.sampling import Sampling


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({}, ()),
        ({"temperature": 0}, ()),
        ({"temperature": 0, "top_p": 0.9, "min_p": 0.1}, ()),
        ({"top_k": 20}, ()),
        ({"top_p": 0.9}, ()),
        ({"min_p": 0.1}, ()),
        ({"top_k": 20, "top_p": 0.9}, ("top_k", "top_p")),
        ({"temperature": 0.001}, ("temperature",)),
        ({"frequency_penalty": 0.5}, ("frequency_penalty",)),
        ({"repetition_penalty": 1.1}, ("repetition_penalty",)),
        ({"min_new_tokens": 3}, ("min_new_tokens",)),
        ({"logit_bias": {"5": 1.0}}, ("logit_bias",)),
        ({"json_schema": "{}"}, ("json_schema",)),
        ({"custom_params": {"x": 1}}, ("custom_logit_processor",)),
        ({"custom_params": {"toploc": 1}}, ()),
    ],
)
def test_options(options: dict[str, Any], other: tuple[str, ...]) -> None:
    from sglang.srt.sampling.sampling_params import SamplingParams
    from toploc_proxy.engines.sglang.sampling import handed_over

    params = SamplingParams(**options)
    found = handed_over(SimpleNamespace(sampling_params=params), Sampling(seed=7, sampler="x"))
    assert found.other == other
    assert found.seed == 7
    assert found.greedy is (options.get("temperature") == 0)
    assert found.top_k == (1 if found.greedy else options.get("top_k", 0))
