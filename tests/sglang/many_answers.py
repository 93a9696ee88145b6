"""Many answers at once, each of them held against a prefill."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api

WORDS = ["a story", "17", "+", "what", "is", "the"]


def bodies(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Prompts of many lengths, some of them twice, so that their beginnings are in the cache."""
    dice = random.Random(seed)
    prompts = [" ".join(dice.choices(WORDS, k=dice.randint(3, 120))) for _ in range(count * 2 // 3)]
    return [
        {
            "messages": [{"role": "user", "content": dice.choice(prompts)}],
            "max_tokens": dice.randint(1, 160),
            "temperature": 1.0,
            "ignore_eos": True,
        }
        for _ in range(count)
    ]


def hold(api: Api, verified: Callable[..., Any], count: int) -> None:
    """Many answers at once, each against a prefill, and some of them against the server's own too."""
    asked = bodies(count)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: api.post("/v1/chat/completions", **body), asked))
    for body, answer in zip(asked, answers, strict=True):
        verified(answer["toploc_proofs"], body["messages"])
    for body, answer in list(zip(asked, answers, strict=True))[:4]:
        report = api.report(answer, **body)
        assert report["verdict"] == "accepted", str(report)
