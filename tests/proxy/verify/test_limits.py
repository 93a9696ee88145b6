"""Places and tokens of verifications: never more than there are, and none lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack

import pytest
from toploc_proxy.verify.limits import Places, TooMany


def test_requests_beyond_the_places_are_refused() -> None:
    places = Places(2, 100, 10)
    with places.request(), places.request(), pytest.raises(TooMany), places.request():
        pass
    assert places.requests == 0


def test_bodies_are_bounded_together() -> None:
    places = Places(100, 100, 10)
    with ExitStack() as stack:
        holds = [stack.enter_context(places.request()) for _ in range(20)]
        for hold in holds[:16]:
            hold(5)
        with pytest.raises(TooMany, match="bodies"):
            holds[16](1)
    with places.request() as hold:
        hold(80)


@pytest.mark.parametrize("seed", range(5))
def test_prefills_wait_for_places_and_tokens(seed: int) -> None:
    """A hundred at once, a third of them cancelled at any point."""
    places, chance, tokens = Places(4, 100, 10), random.Random(seed), 0
    most = []

    async def work(size: int, steps: int) -> None:
        nonlocal tokens
        async with places.prefill(size):
            tokens += size
            most.append((places.running, tokens))
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                tokens -= size

    async def run() -> None:
        tasks = [asyncio.create_task(work(chance.randint(1, 100), chance.randint(0, 5))) for _ in range(100)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), places.prefill(100):
            pass

    asyncio.run(run())
    assert max(running for running, _ in most) <= 4
    assert max(held for _, held in most) <= 100
    assert places.most_running <= 4
    assert places.running == tokens == 0


def test_a_long_one_is_not_passed_over() -> None:
    async def run() -> list[int]:
        places, order = Places(10, 100, 10), []

        async def work(size: int) -> None:
            async with places.prefill(size):
                order.append(size)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(size) for size in (60, 100, 10, 20)))
        return order

    assert asyncio.run(run()) == [60, 100, 10, 20]


def test_beside_answers_there_are_fewer_tokens() -> None:
    """While the engine answers, and a while after, prefills take few of its tokens, but one of them always goes on."""

    async def most_at_once(sizes: list[int], *, answering: bool) -> int:
        is_answering = answering
        places = Places(10, 100, 10, beside=30, answering=lambda: is_answering)
        held, most = 0, 0

        async def work(size: int) -> None:
            nonlocal held, most, is_answering
            async with places.prefill(size):
                held += size
                most = max(most, held)
                await asyncio.sleep(0)
                is_answering = False
                held -= size

        async with asyncio.timeout(5):
            await asyncio.gather(*(work(size) for size in sizes))
        return most

    assert asyncio.run(most_at_once([10] * 9, answering=True)) == 30
    assert asyncio.run(most_at_once([90, 90, 20, 20], answering=True)) == 90
    assert asyncio.run(most_at_once([10] * 9, answering=False)) == 90
