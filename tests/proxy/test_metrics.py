"""Metrics as Prometheus sees them, and the dashboard that reads them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client
from scripted import reply, worker
from toploc_proxy import application, metrics
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import Slots

if TYPE_CHECKING:
    import pytest

DASHBOARD = Path(__file__).parents[2] / "configs" / "grafana.json"


class Workers:
    """A channel whose workers answer, then one of them does not, then they do again."""

    def __init__(self, answers: list[dict[int, Slots] | TimeoutError]) -> None:
        self.answers = answers
        self.empty = asyncio.Event()

    async def slots(self) -> dict[int, Slots]:
        if not self.answers:
            self.empty.set()
            await asyncio.sleep(3600)
        answer = self.answers.pop(0)
        if isinstance(answer, TimeoutError):
            raise answer
        return answer


def test_slots_are_watched_through_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "POLL_SECONDS", 0.0)

    async def watch() -> None:
        workers = Workers([{0: Slots(36, 5), 1: Slots(36, 7)}, TimeoutError(), {0: Slots(36, 0), 1: Slots(36, 1)}])
        task = asyncio.create_task(application.watch_slots(workers))
        await workers.empty.wait()
        task.cancel()

    asyncio.run(watch())
    text = prometheus_client.generate_latest().decode()
    assert 'toploc:slots{engine="0"} 36.0' in text
    assert 'toploc:slots_in_use{engine="0"} 0.0' in text
    assert 'toploc:slots_in_use{engine="1"} 1.0' in text


def test_slots_are_those_of_the_engines_by_their_numbers(sockets: str) -> None:
    """Behind a load balancer of the operator's a front end has engines that do not begin with 0."""

    async def watch() -> None:
        channel = Channel.connect(sockets, 1, timeout=20, first=5)
        task = asyncio.create_task(application.watch_slots(channel))
        try:
            async with asyncio.timeout(20):
                while 'toploc:slots{engine="5"} 17.0' not in prometheus_client.generate_latest().decode():
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            channel.close()

    with worker(sockets, lambda _: reply(Slots(17, 3)), engine=5):
        asyncio.run(watch())
    assert 'toploc:slots_in_use{engine="5"} 3.0' in prometheus_client.generate_latest().decode()


def test_the_dashboard_reads_metrics_that_exist() -> None:
    metrics.ANSWERS.labels("proven").inc()
    metrics.VERIFICATIONS.labels("accepted").inc()
    exported = set(re.findall(r"^(toploc:\w+)", prometheus_client.generate_latest().decode(), re.MULTILINE))
    expressions = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]
    ]
    read = {name for expression in expressions for name in re.findall(r"toploc:\w+", expression)}
    assert read <= exported
    assert len(read) == 9
