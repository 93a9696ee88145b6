"""What vLLM's own request classes hand to the engine is what the check on tokens replays, or says that it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from toploc_proxy.channel.tag import EXTRA_ARG
from toploc_proxy.engines.vllm.constraints import constraints_of, handed_over
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from toploc.tokens.sampling import Sampling

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def params_of(options: dict[str, Any], defaults: dict[str, Any] | None = None) -> Any:
    request = ChatCompletionRequest(model="m", messages=MESSAGES, **options)
    return request.to_sampling_params(64, defaults or {})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.02},
        {"top_k": 1},
        {"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.2},
        {"logit_bias": {"5": 200, "7": -3}, "min_tokens": 4, "stop_token_ids": [9], "ignore_eos": True},
        {"seed": 7, "prompt_cache_key": "user-7", "an_option_of_tomorrow": 1},
    ],
)
def test_options_are_those_of_the_request(options: dict[str, Any]) -> None:
    asked = Sampling.of(options)
    found = handed_over(params_of(options), asked)
    assert found.greedy == asked.greedy
    for name in Sampling.model_fields:
        if name != "top_k" or asked.top_k > 0:  # none is 0 or -1
            assert getattr(found, name) == getattr(asked, name), name


def test_the_servers_defaults_are_in_there() -> None:
    found = handed_over(params_of({"seed": 1}, {"temperature": 0.6, "top_k": 5}), Sampling(seed=3, sampler="murmur3"))
    assert (found.temperature, found.top_k, found.seed, found.sampler) == (0.6, 5, 3, "murmur3")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, ()),
        ({"tools": [TOOL], "tool_choice": "auto"}, ()),
        ({"prompt_cache_key": "user-7"}, ()),
        ({"bad_words": []}, ()),
        ({"kv_transfer_params": {"a": 1}}, ()),
        ({"bad_words": ["x"], "allowed_token_ids": [1]}, ("allowed_token_ids", "bad_words")),
        ({"response_format": {"type": "json_object"}}, ("structured_outputs",)),
        ({"structured_outputs": {"regex": "a+"}}, ("structured_outputs",)),
        ({"vllm_xargs": {"processor": 1}}, ("processor",)),
        ({"thinking_token_budget": 5}, ("thinking_token_budget",)),
        ({"thinking_token_budget": 0}, ("thinking_token_budget",)),
        ({"thinking_token_budget": -1}, ()),
    ],
)
def test_constraints(options: dict[str, Any], named: tuple[str, ...]) -> None:
    params = params_of(options)
    assert constraints_of(params) == named
    assert handed_over(params, Sampling.of(options)).other == named


@pytest.mark.parametrize(
    ("options", "watermarks", "named"),
    [
        ({}, True, ("watermarking",)),
        ({"watermarking": True}, True, ("watermarking",)),
        ({"watermarking": False}, True, ()),
        ({"watermarking": True}, False, ("watermarking",)),
        ({}, False, ()),
    ],
)
def test_watermarked_tokens_are_not_replayed(options: dict[str, Any], watermarks: bool, named: tuple[str, ...]) -> None:
    """Their noise is from the engine's key, and no seed of a request."""
    found = handed_over(params_of(options), Sampling.of(options), watermarks=watermarks)
    assert found.other == named


def test_our_own_argument_is_no_constraint() -> None:
    params = params_of({})
    params.extra_args = {EXTRA_ARG: "x"}
    assert constraints_of(params) == ()


def test_beams_are_known_from_the_request_alone() -> None:
    options = {"use_beam_search": True}
    assert handed_over(params_of(options), Sampling.of(options)).other == ("use_beam_search",)


def test_completions() -> None:
    request = CompletionRequest(model="m", prompt="x", response_format={"type": "json_object"}, temperature=0.5)
    found = handed_over(request.to_sampling_params(64, {}), Sampling())
    assert (found.temperature, found.other) == (0.5, ("structured_outputs",))
