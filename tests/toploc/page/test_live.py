"""Streams of a state that changes: what browsers get, how many of them, and how they end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from toploc.errors import ToplocError
from toploc.page import live
from toploc.page.live import BROWSERS, Live, TooManyBrowsers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Server:
    """A state, and how often somebody looked at it."""

    def __init__(self, **options: Any) -> None:
        self.state: Any = {"text": "a\n\nb\u2028"}
        self.looks = 0
        self.live = Live(self.look, 0.01, **options)

    async def look(self) -> Any:
        self.looks += 1
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def stream(self) -> AsyncGenerator[bytes, None]:
        made: Any = self.live.stream()
        return made


def read(event: bytes) -> tuple[str, Any]:
    """One event, whose data is one line."""
    name, data, *end = event.decode("ascii").split("\n")
    assert end == ["", ""]
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_an_event_is_a_state_that_changed() -> None:
    async def run() -> None:
        server = Server()
        events = server.stream()
        assert read(await anext(events)) == ("state", server.state)
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.1)
        assert not following.done()
        assert server.looks > 1
        server.state = {"text": "other"}
        assert read(await following) == ("state", {"text": "other"})
        server.state = ToplocError("store: away")
        assert read(await anext(events)) == ("problem", "store: away")
        server.state = {}
        assert read(await anext(events)) == ("state", {})
        await events.aclose()

    asyncio.run(run())


def test_browsers_share_a_look() -> None:
    async def run() -> None:
        server = Server()
        server.live = Live(server.look, 60.0)
        streams = [server.stream() for _ in range(5)]
        assert len({await anext(stream) for stream in streams}) == 1
        assert server.looks == 1
        for stream in streams:
            await stream.aclose()

    asyncio.run(run())


def test_what_is_silent_is_kept_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE", 0.0)

    async def run() -> None:
        events = Server().stream()
        await anext(events)
        assert await anext(events) == b":\n\n"
        await events.aclose()

    asyncio.run(run())


def test_no_more_browsers_than_a_server_has_room_for() -> None:
    async def run() -> None:
        server = Server()
        streams = [server.stream() for _ in range(BROWSERS)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(TooManyBrowsers):
            server.stream()
        await streams[0].aclose()
        again = server.stream()
        await anext(again)
        for stream in (again, *streams):
            await stream.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["closed", "stopping", "lifetime"])
def test_streams_end(how: str) -> None:
    async def run() -> None:
        stops = False
        server = Server(lifetime=0.05 if how == "lifetime" else 1e9, stopping=lambda: stops)
        events = server.stream()
        await anext(events)
        if how == "closed":
            server.live.close()
        stops = how == "stopping"
        assert [event async for event in events] == []
        if how == "closed":
            assert [event async for event in server.stream()] == []

    asyncio.run(run())
