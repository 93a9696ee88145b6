"""Completions: of a text, of ids, and of several at once."""

from __future__ import annotations

from typing import Any

from . import (
    BYTES,
    COMPLETIONS,
    EMOJI,
    END,
    FULL_STOP,
    GREEDY,
    RESPONSE_FORMAT,
    SAMPLED,
    Asked,
    streamed,
)

NUMBERS = "one, two, three"
IDS = list(range(300, 312))
TALE = "Once there was a kind dog called Greta."
"""How a greedy story begins, that comes to `STOP`."""
STOP = "sun w"


def completion(prompt: Any, **body: Any) -> tuple[str, dict[str, Any]]:
    """Greedy unless it says another temperature."""
    return COMPLETIONS, {"prompt": prompt, **GREEDY, **body}


_ALONE: Asked = {
    "completion-logprobs": completion(NUMBERS, max_tokens=6, logprobs=2),
    "completion-logprobs-of-token": completion(NUMBERS, max_tokens=6, logprobs=0, return_tokens_as_token_ids=True),
    "completion-prompt-logprobs": completion(NUMBERS, max_tokens=4, prompt_logprobs=1),
    "completion-echo-logprobs": completion(NUMBERS, max_tokens=4, logprobs=1, echo=True),
    "completion-echo-ids": completion(IDS, max_tokens=6, echo=True),
    "completion-three-choices": completion(NUMBERS, n=3, max_tokens=34, **SAMPLED),
    "completion-best-of": completion(NUMBERS, n=1, best_of=3, max_tokens=12, **SAMPLED),
    "completion-several-prompts": completion([NUMBERS, "January", "漢字 🙂"], max_tokens=10),
    "completion-several-ids": completion([IDS, IDS[:3]], n=2, max_tokens=10, seed=21, **SAMPLED),
    "completion-ids-token-ids": completion(IDS, max_tokens=10, return_token_ids=True),
    "completion-seeded": completion(NUMBERS, max_tokens=20, seed=22, top_k=30, top_p=0.95, min_p=0.01, **SAMPLED),
    "completion-penalties": completion(NUMBERS, max_tokens=20, repetition_penalty=1.3, presence_penalty=0.5),
    "completion-logit-bias": completion(NUMBERS, max_tokens=10, logit_bias={"17": -100}),
    "completion-json-schema": completion(NUMBERS, max_tokens=40, response_format=RESPONSE_FORMAT),
    "completion-unicode": completion("naïve 🙂", max_tokens=40, structured_outputs=EMOJI),
    "completion-broken-characters": completion(NUMBERS, max_tokens=16, allowed_token_ids=BYTES, seed=23, **SAMPLED),
    "completion-stop": completion(TALE, stop=[STOP], max_tokens=60),
    "completion-stop-included": completion(TALE, stop=[STOP], include_stop_str_in_output=True, max_tokens=60),
    "completion-stop-token": completion(TALE, stop_token_ids=[FULL_STOP], min_tokens=8, max_tokens=60),
    "completion-special-tokens": completion(NUMBERS, skip_special_tokens=False, ignore_eos=True, max_tokens=40),
    "completion-empty": completion(NUMBERS, logit_bias={str(END): 100}),
    "completion-one-token": completion(NUMBERS, max_tokens=1),
    "completion-long": completion(TALE, max_tokens=130, ignore_eos=True),
    "completion-truncated-prompt": completion(TALE, truncate_prompt_tokens=8, max_tokens=10),
}
ASKED: Asked = {
    **_ALONE,
    **streamed(
        _ALONE,
        "completion-logprobs",
        "completion-echo-ids",
        "completion-three-choices",
        "completion-several-prompts",
        "completion-ids-token-ids",
        "completion-unicode",
        "completion-broken-characters",
        "completion-stop",
        "completion-stop-token",
        "completion-empty",
        "completion-long",
    ),
}
