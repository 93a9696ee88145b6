"""A provider, a verifier and a gateway, each behind a socket of its own; no engine runs here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import httpx
import httpx2
import uvicorn
import yaml
from lying_provider import LyingProvider
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from toploc_gateway.app import application
from toploc_gateway.config import read_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send
    from toploc_gateway.gateway import Gateway

    from toploc.verifier.transformers import TransformersVerifier


class Served:
    """An ASGI application on a port, by a thread of this process."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        # uvloop cannot close a loop on which a connection is still being closed.
        options: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 2}
        config = uvicorn.Config(app, port=port, loop="asyncio", **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Served:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


class Provider:
    """A lying provider behind a socket. `headers` are added to its replies, `wraps` may put another body in place."""

    url: str

    @classmethod
    @contextmanager
    def served(cls, name: str = "greedy") -> Iterator[Self]:
        made = cls(name)
        with Served(made) as served:
            made.url = served.url
            yield made

    def __init__(self, name: str = "greedy") -> None:
        self.lying = LyingProvider(name)
        self.lying.fresh = True
        self.headers: dict[str, str] = {}
        self.status: int | None = None
        self.pause = 0.0
        """Seconds between two events."""
        self.gate: threading.Event | None = None
        """What a stream waits for after its second event."""
        self.breaks_after: int | None = None
        """Parts after which the connection is cut."""
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.kept: Callable[[str], Response] | None = None
        """What a server says that keeps the proofs of its last answers, by an answer's id."""
        self.other: Callable[[Request], Response] | None = None
        """What answers in the provider's place."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        raw = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        if request.url.path != "/v1/toploc":
            self.requests.append((request.method, raw, dict(request.headers), body))
        if self.kept is not None and request.url.path.startswith("/v1/toploc/proofs/"):
            await self.kept(request.url.path.rpartition("/")[2])(scope, receive, send)
            return
        if self.other is not None and request.url.path != "/v1/toploc":
            await self.other(request)(scope, receive, send)
            return
        made = self.lying.handle_request(httpx2.Request(request.method, str(request.url), content=body))
        headers = {**dict(made.headers), **(self.headers if request.url.path != "/v1/toploc" else {})}

        async def parts() -> AsyncIterator[bytes]:
            for number, part in enumerate(made.stream):  # type: ignore[arg-type]
                if number == self.breaks_after:
                    raise ConnectionError
                if number == 2 and self.gate is not None:
                    await asyncio.to_thread(self.gate.wait)
                if self.pause:
                    await asyncio.sleep(self.pause)
                yield part

        response = StreamingResponse(parts(), self.status or made.status_code, headers)
        with suppress(ConnectionError):  # the server closes the connection of a reply without an end
            await response(scope, receive, send)


@contextmanager
def gateway_before(url: str, model: str, key: str, folder: Path) -> Iterator[Running]:
    """One with a key of its own, before a server that also verifies; its client has the key."""
    upstream = {"name": "one", "url": f"{url}/v1", "models": [model], "verifiers": [{"url": url}]}
    config = {"api_keys": [key], "store": {"url": f"sqlite:{folder / 'gateway.db'}"}, "upstreams": [upstream]}
    (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
    app = application(read_config(folder / "gateway.yaml"))
    with Served(app) as served:
        running = Running(served, app.state.gateway)
        running.http.headers["authorization"] = f"Bearer {key}"
        yield running
        running.http.close()


class VerifierApp:
    """The real verifier's reports by `POST /v1/toploc/verify`."""

    def __init__(self, mini: TransformersVerifier) -> None:
        self.mini = mini
        self.down = False
        self.delay = 0.0
        self.asked: list[dict[str, Any]] = []
        self.change: Callable[[dict[str, Any]], Any] = lambda _: None
        """Of the report, in place."""
        self._reports: dict[bytes, dict[str, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await Request(scope, receive).body()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.down:
            await Response(status_code=503)(scope, receive, send)
            return
        self.asked.append(json.loads(body))
        report = await asyncio.to_thread(self._report, body)
        self.change(report)
        await JSONResponse(report)(scope, receive, send)

    def _report(self, body: bytes) -> dict[str, Any]:
        """A prefill takes a second, and says the same of the same tokens."""
        evidence = json.loads(body)
        known = {**evidence["response"], "id": None} if isinstance(evidence["response"], dict) else evidence
        key = json.dumps({**evidence, "response": known}).encode()
        if key not in self._reports:
            self._reports[key] = self.mini.verify(body).model_dump(mode="json")
        return json.loads(json.dumps(self._reports[key]))


class Running:
    """A gateway at work."""

    def __init__(self, served: Served, gateway: Gateway) -> None:
        self.served, self.gateway = served, gateway
        self.url = served.url
        self.http = httpx.Client(base_url=served.url, timeout=300)

    def ask(self, provider: Provider, **more: Any) -> httpx.Response:
        return self.http.post(provider.lying.path, json={**provider.lying.request, **more})

    def report(self, reply: httpx.Response) -> dict[str, Any]:
        return self.http.get(f"/toploc/reports/{reply.headers['toploc-report']}").json()

    def upstream(self, name: str = "one") -> dict[str, Any]:
        listed = self.http.get("/toploc/upstreams").json()["upstreams"]
        return next(one for one in listed if one["name"] == name)

    def metric(self, name: str, **labels: str) -> float:
        found = self.gateway.metrics.registry.get_sample_value(name, labels)
        return found or 0.0

    def eventually(self, holds: Callable[[], Any], seconds: float = 120) -> Any:
        until = time.monotonic() + seconds
        while not (value := holds()):
            assert time.monotonic() < until
            time.sleep(0.05)
        return value


class Process:
    """`toploc gateway` by itself."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.path = folder / "gateway.yaml"
        self.path.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "toploc", "gateway", str(self.path)]
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{config['port']}", timeout=30)
        until = time.monotonic() + 60
        while True:
            try:
                if self.http.get("/toploc/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < until
            assert self.process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.http.close()
        self.log.close()


def config_of(
    folder: Path, verifier: str, providers: tuple[Provider, ...], upstream: dict[str, Any], parts: dict[str, Any]
) -> dict[str, Any]:
    upstreams = [
        {
            "name": name,
            "url": f"{made.url}/v1",
            "api_key": f"key-of-{name}",
            "models": ["toploc-mini"],
            "verifiers": [{"url": verifier, "retries": 0, "timeout": 300}],
            **upstream,
        }
        for name, made in zip(("one", "two", "three"), providers, strict=False)
    ]
    store = {"url": f"sqlite:{folder / 'gateway.db'}", **parts.pop("store", {})}
    return {"upstreams": upstreams, "store": store, **parts}
