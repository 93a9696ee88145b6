"""Seeds of requests that sample, and servers that are held to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from lying_provider import LyingProvider
from toploc_client import ToplocError, UndecidedResponse
from toploc_client.seeds import SEEDS, draw

from test_lies import ACCEPTED, chat  # isort: skip


def provider(sampler: str | None = "vllm-v1") -> LyingProvider:
    made = LyingProvider("seeded")
    made.request = {name: value for name, value in made.request.items() if name != "seed"}
    made.request["temperature"] = 1.0
    made.sampler, made.fresh = sampler, True
    return made


def test_a_request_that_samples_has_a_seed_of_the_clients() -> None:
    asked = provider()
    client = asked.client(verifier=lambda _: ACCEPTED)
    for stream in (False, True, False):
        list(chat(client, asked, stream=stream))
    seeds = [body["seed"] for body in asked.asked]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < SEEDS for seed in seeds)


def test_async() -> None:
    async def run() -> list[dict[str, Any]]:
        asked = provider()
        async with asked.async_client(verifier=lambda _: ACCEPTED) as client:
            await chat(client, asked)
        return asked.asked

    assert "seed" in asyncio.run(run())[0]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"draw_seeds": False}, {}),
        ({"verifier": ()}, {}),
        ({}, {"temperature": 0}),
        ({}, {"seed": 5}),
        ({}, {"extra_body": {"seed": 5}}),
        ({}, {"extra_body": {"use_beam_search": True}}),
    ],
)
def test_requests_that_are_left_as_they_are(options: dict[str, Any], more: dict[str, Any]) -> None:
    asked = provider()
    asked.request = {"model": "toploc-mini", "messages": asked.request["messages"], "temperature": 1.0}
    client = asked.client(**{"verifier": lambda _: ACCEPTED, "on_undecided": "warn", **options})
    client.chat.completions.create(**{**asked.request, **more})
    assert asked.asked[0].get("seed") in (None, 5)


def test_a_server_that_names_no_sampler_gets_no_seed() -> None:
    asked = provider(sampler=None)
    chat(asked.client(verifier=lambda _: ACCEPTED), asked)
    assert "seed" not in asked.asked[0]


def test_seeds_by_a_public_value() -> None:
    """Anybody can derive them again from the request."""
    asked = provider()
    chat(asked.client(verifier=lambda _: ACCEPTED, draw_seeds=lambda: "round 5"), asked)
    [body] = asked.asked
    seed = body.pop("seed")
    text = "round 5:" + json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert seed == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 11
    assert draw("round 6", body) != seed
    with pytest.raises(ToplocError, match="draw_seeds"):
        asked.client(draw_seeds=5)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_has_a_sampler_and_does_not_use_it(stream: bool) -> None:
    asked = provider()
    asked.withholds = True
    client = asked.client(verifier=lambda _: ACCEPTED)
    with pytest.raises(UndecidedResponse, match="sampler_withheld"):
        list(chat(client, asked, stream=stream))
    asked.request["temperature"] = 0
    list(chat(client, asked, stream=stream))
