"""Tokens for tokens: prompts and answers as ids, log-probabilities, and text where it is asked for."""

from __future__ import annotations

from typing import Any

from . import END, FULL_STOP, GREEDY, TOKENS, Asked, streamed

IDS = list(range(300, 312))
FLAGS = ["--enable-scale-out"]


def generate(sampling: dict[str, Any], **body: Any) -> tuple[str, dict[str, Any]]:
    """Greedy unless it says another temperature."""
    return TOKENS, {"token_ids": IDS, "sampling_params": {**GREEDY, **sampling}, **body}


_ALONE: Asked = {
    "generate-ids": generate({"max_tokens": 40}, return_token_ids=True),
    "generate-logprobs": generate({"max_tokens": 6, "logprobs": 2}),
    "generate-prompt-logprobs": generate({"max_tokens": 4, "prompt_logprobs": 1}),
    "generate-three-choices": generate({"max_tokens": 34, "n": 3, "temperature": 1, "ignore_eos": True, "seed": 31}),
    "generate-text": generate({"max_tokens": 40, "stop": [" the"]}, output_mode="text"),
    "generate-stop-token": generate({"max_tokens": 60, "stop_token_ids": [FULL_STOP], "min_tokens": 8}),
    "generate-own-end": generate({"logit_bias": {str(END): 100}, "min_tokens": 3}),
}
ASKED: Asked = {
    **_ALONE,
    **streamed(_ALONE, "generate-ids", "generate-logprobs", "generate-three-choices", "generate-text"),
}
