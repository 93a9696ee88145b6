"""The verify route where the engine fails, or the client goes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import prometheus_client
import pytest
from fastapi import FastAPI
from states import server
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import Examine
from toploc_proxy.settings import Page, Settings
from toploc_proxy.verify.engine import Busy
from toploc_proxy.verify.limits import Places
from toploc_proxy.verify.recent import Verifications
from toploc_proxy.verify.route import router
from toploc_proxy.verify.verifier import unless_dead

from toploc.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Broken:
    """A verifier whose engine does what it is told."""

    def __init__(self, engine: Callable[[], Any]) -> None:
        self.places = Places(1, 100, 1000)
        self.recent = Verifications(Settings(channel="/nowhere", page=Page.NONE))
        self._engine = engine

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        return work()

    async def parse(self, item: object) -> object:
        return SimpleNamespace(source=(item, {}), answers=())

    async def verify(self, _: object) -> Any:
        return await self._engine()


def app_of(verifier: Broken) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    app.state.toploc = server(verifier=verifier)
    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("the engine is dead"), "internal_error"), (TimeoutError(), "verification_timeout")],
)
def test_an_engine_that_fails_is_a_500_and_gives_its_place_back(error: Exception, code: str) -> None:
    async def fail() -> None:
        raise error

    async def run() -> None:
        verifier = Broken(fail)
        transport = httpx.ASGITransport(app_of(verifier))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for _ in range(2):
                response = await client.post("/v1/toploc/verify", json={"request": {}, "response": {}})
                assert (response.status_code, response.json()["error"]["code"]) == (500, code)
                assert "dead" not in response.text
            response = await client.post("/v1/toploc/verify", json={"items": [{}, {}]})
            assert response.text.count(code) == 2
        assert verifier.places.requests == 0

    asyncio.run(run())


def test_a_full_queue_is_a_503_that_says_when_to_come_back() -> None:
    async def full() -> None:
        raise Busy("the engine is full")

    async def run() -> None:
        transport = httpx.ASGITransport(app_of(Broken(full)))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            response = await client.post("/v1/toploc/verify", json={"request": {}, "response": {}})
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert response.json()["error"]["code"] == "engine_busy"
            response = await client.post("/v1/toploc/verify", json={"items": [{}, {}]})
            assert response.text.count("engine_busy") == 2

    asyncio.run(run())


@pytest.mark.parametrize("body", [{"request": {}, "response": {}}, {"items": [{}]}, []])
def test_a_server_without_a_tokenizer_says_that_it_cannot_verify(body: object) -> None:
    async def run() -> None:
        app = FastAPI()
        app.include_router(router)
        app.state.toploc = server(verifier=None)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            response = await client.post("/v1/toploc/verify", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (501, "no_tokenizer", None)
        assert "--tokens-only" in error["message"]

    asyncio.run(run())


def test_a_verification_is_timed_as_one_and_not_as_a_proof() -> None:
    def counts() -> list[float | None]:
        names = [f"toploc:{what}_latency_seconds_count" for what in ("verification", "proof")]
        return [prometheus_client.REGISTRY.get_sample_value(name) for name in names]

    async def report() -> Report:
        return Report.of([], model="m")

    async def run() -> None:
        transport = httpx.ASGITransport(app_of(Broken(report)))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            response = await client.post("/v1/toploc/verify", json={"request": {}, "response": {}})
            assert response.status_code == 200

    verifications, proofs = counts()
    asyncio.run(run())
    assert counts() == [(verifications or 0) + 1, proofs]


@pytest.mark.parametrize("body", [b'{"request":{},"response":{}}', b'{"items":[{},{}]}'])
def test_a_client_that_goes_ends_its_verification(body: bytes) -> None:
    async def run() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def for_ever() -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        verifier = Broken(for_ever)
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            message = next(messages, None)
            if message is None:
                await began.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(_: Any) -> None:
            pass

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/toploc/verify",
            "raw_path": b"/v1/toploc/verify",
            "query_string": b"",
            "headers": [],
            "scheme": "http",
            "client": None,
            "server": None,
        }
        async with asyncio.timeout(10):
            await app_of(verifier)(scope, receive, send)
            await ended.wait()
        assert verifier.places.requests == 0

    asyncio.run(run())


def test_what_a_dead_engines_worker_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prefill is over, so vLLM tells nobody; the socket is there, and silent."""
    monkeypatch.setattr("toploc_proxy.verify.verifier.ALIVE_SECONDS", 0.05)

    async def run() -> None:
        engine: Any = SimpleNamespace(errored=False, dead_error=RuntimeError("the engine is dead"))
        channel = Channel.connect(str(tmp_path), 1, timeout=60)
        examine = channel.examine(Examine("0" * 32, [1], [2], None, []), 60)
        asyncio.get_running_loop().call_later(0.2, setattr, engine, "errored", True)
        async with asyncio.timeout(10):
            with pytest.raises(RuntimeError, match="the engine is dead"):
                await unless_dead(engine, examine)
            assert await unless_dead(engine, asyncio.sleep(0, "an answer")) == "an answer"
        channel.close()

    asyncio.run(run())
