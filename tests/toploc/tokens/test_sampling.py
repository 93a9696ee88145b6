"""What of a request decides how its tokens are checked."""

from __future__ import annotations

from typing import Any

import pytest

from toploc.tokens.sampling import Sampling


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ({"temperature": 0}, True),
        ({"top_k": 1}, True),
        ({"top_k": 1, "temperature": 1.5, "seed": 3}, True),
        ({"min_p": 1}, True),
        ({"top_p": 1e-9}, True),
        ({}, False),
        ({"top_k": 0}, False),
        ({"top_k": -1}, False),
        ({"top_k": 2}, False),
        ({"min_p": 0.99}, False),
        ({"top_p": 0.01}, False),
    ],
)
def test_what_leaves_one_token_is_greedy(options: dict[str, Any], greedy: bool) -> None:
    sampling = Sampling.of(options)
    assert sampling.greedy == greedy
    assert sampling.divisor == (1 if greedy else 1.0)


STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("option", "constraint"),
    [
        ({"structured_outputs": {"regex": "a"}}, True),
        ({"guided_json": {"type": "object"}}, True),
        ({"response_format": {"type": "json_object"}}, True),
        ({"output_config": {"format": {"type": "json_schema"}}}, True),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, True),
        ({"tools": [{"type": "function", "function": {"name": "e"}}, STRICT]}, True),
        ({"tools": [{"type": "function", "name": "f", "strict": True}]}, True),
        ({"bad_words": ["x"]}, True),
        ({"allowed_token_ids": [1]}, True),
        ({"thinking_token_budget": 10}, True),
        ({"watermarking": True}, True),
        ({"vllm_xargs": {"a": 1}}, True),
        ({"logits_processors": ["a.b"]}, True),
        ({"use_beam_search": True}, True),
        ({"response_format": {"type": "text"}}, False),
        ({"output_config": {"effort": "low"}}, False),
        ({"tool_choice": "auto"}, False),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": False}}, 3]}, False),
        ({"bad_words": []}, False),
        ({"watermarking": False}, False),
        ({"use_beam_search": False}, False),
        ({"bad_words": None}, False),
        ({"prompt_cache_key": "user-7"}, False),
        ({"an_option_of_tomorrow": {"a": 1}}, False),
        ({"guided_decoding_backend": "x"}, False),
        ({"logprobs": 3, "service_tier": "flex", "length_penalty": 2}, False),
    ],
)
def test_only_what_constrains_the_choice_of_tokens_stops_the_check(option: dict[str, Any], constraint: bool) -> None:
    assert Sampling.of(option).other == ((next(iter(option)),) if constraint else ())
