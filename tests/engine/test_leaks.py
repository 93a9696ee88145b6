"""Many short requests, a third of them abandoned at a random moment: nothing of them stays behind.

`LEAK_REQUESTS=10000` makes the long run of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from conftest import Api
    from toploc_proxy.local_server import LocalServer

REQUESTS = int(os.environ.get("LEAK_REQUESTS", "1000"))
CONCURRENT = 24
# Connections that keep alive, and event loops' own descriptors, come and go.
SPARE_DESCRIPTORS = 10


def descriptors(group: int) -> dict[int, int]:
    """Open descriptors of every process of a process group."""
    counts = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                counts[int(folder.name)] = len(list((folder / "fd").iterdir()))
        except OSError:
            continue
    return counts


async def load(url: str, requests: int) -> dict[str, int]:
    """Outcomes by name."""
    outcomes: dict[str, int] = {}
    numbers = iter(range(requests))

    async def worker(http: httpx.AsyncClient) -> None:
        for number in numbers:
            outcome = await one(http, Random(number))
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        await asyncio.gather(*(worker(http) for _ in range(CONCURRENT)))
    return outcomes


async def one(http: httpx.AsyncClient, random: Random) -> str:
    body: dict[str, Any] = {
        "model": "toploc-mini",
        "prompt": [random.randrange(10, 900) for _ in range(random.randrange(1, 40))],
        "max_tokens": random.choice([1, 4, 33, 400]),
        "n": random.choice([1, 1, 2]),
        "temperature": 1,
        "stream": True,
        "ignore_eos": True,
    }
    leave_after = random.randrange(0, 20) if random.random() < 1 / 3 else None
    if leave_after is None:
        body["max_tokens"] = min(body["max_tokens"], 33)
    events = 0
    async with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            assert '"error"' not in line
            if leave_after is not None and events >= leave_after:
                return "left"
            events += line.startswith("data: ")
            if "toploc_proofs" in line and body["n"] == 1:
                return "proven"
    return "ended"


def settled(api: Api, name: str) -> float:
    """The gauge's value once it is 0, or after ten seconds: workers are asked once a second."""
    deadline = time.monotonic() + 10
    while (value := api.metric(name)) > 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


def test_nothing_stays_behind(server: LocalServer, api: Api) -> None:
    asyncio.run(load(server.url, 100))
    assert settled(api, "toploc:slots_in_use") == 0
    before = descriptors(server.pid)
    assert len(before) >= 3
    proven = api.metric("toploc:answers_total")
    outcomes = asyncio.run(load(server.url, REQUESTS))
    assert outcomes["left"] > REQUESTS / 10
    assert outcomes["proven"] + outcomes["ended"] > REQUESTS / 2
    assert api.metric("toploc:answers_total") - proven >= outcomes["proven"]
    assert settled(api, "vllm:num_requests_running") == 0
    assert settled(api, "toploc:slots_in_use") == 0
    after = descriptors(server.pid)
    assert after.keys() == before.keys()
    assert all(after[pid] <= before[pid] + SPARE_DESCRIPTORS for pid in before), (before, after)
    # The server is as it was.
    assert "choices" in api.chat([{"role": "user", "content": "What is 17 + 25?"}])["toploc_proofs"]
