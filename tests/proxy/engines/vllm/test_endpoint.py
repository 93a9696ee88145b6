"""The handshake at start: real workers' ends of the side channel that describe themselves in different ways."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass

import msgspec
import pytest
import torch
from fastapi import FastAPI
from toploc_proxy import application
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.application import handshake
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import Recorder
from toploc_proxy.channel.addresses import worker_address
from toploc_proxy.channel.client import Channel
from toploc_proxy.channel.messages import PROTOCOL, Welcome
from toploc_proxy.channel.service import Service
from toploc_proxy.engines.vllm.endpoint import ToplocEndpoint
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, Settings

from toploc.errors import UnsupportedEngine
from toploc.scheme import TOPK

WELCOME = Welcome(PROTOCOL, "0", "v1", 256, "bfloat16", None, 8)


def greet(directory: str, *workers: Welcome, engines: int | None = None) -> Welcome:
    for i, welcome in enumerate(workers):
        recorder = Recorder(HostRing(1, 64, 128, torch.bfloat16, TOPK), "secret")
        Service(worker_address(directory, i), recorder, welcome, capture_ttl=60).start()

    async def main() -> Welcome:
        channel = Channel.connect(directory, engines or len(workers), timeout=20)
        try:
            return await handshake(channel)
        finally:
            channel.close()

    return asyncio.run(main())


def test_workers_agree(sockets: str) -> None:
    other = msgspec.structs.replace(WELCOME, slots=4)
    assert greet(sockets, WELCOME, other) == WELCOME


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": PROTOCOL + 1}, "install the same version"),
        ({"hidden_size": 512}, "different models"),
        ({"dtype": "float16"}, "different models"),
        ({"rounded_from": "float32"}, "different models"),
    ],
)
def test_workers_disagree(sockets: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(UnsupportedEngine, match=message) as caught:
        greet(sockets, WELCOME, msgspec.structs.replace(WELCOME, **change))
    assert "\n" not in str(caught.value)


def test_missing_worker(sockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "HANDSHAKE_TIMEOUT", 0.2)
    with pytest.raises(UnsupportedEngine, match="does not answer"):
        greet(sockets, WELCOME, engines=2)


@dataclass
class State:
    """What the plugin must leave alone."""


def test_plugin_does_nothing_in_a_server_of_vllms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    app = FastAPI()
    routes = list(app.routes)
    ToplocEndpoint().attach_router(app)
    assert (app.user_middleware, app.routes) == ([], routes)
    state = State()
    asyncio.run(ToplocEndpoint().init_state(None, state, None))  # type: ignore[arg-type]
    assert vars(state) == {}


def test_plugin_attaches_middleware_and_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(channel="/nowhere")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, settings.model_dump_json())
    app = FastAPI()
    ToplocEndpoint().attach_router(app)
    (middleware,) = app.user_middleware
    assert (middleware.cls, middleware.kwargs) == (ProofMiddleware, {"settings": settings})
    assert "/v1/toploc" in app.openapi()["paths"]


def test_a_missing_package_ends_the_server() -> None:
    """vLLM goes on without a plugin that cannot be loaded; what fails while it is attached it does not catch."""
    program = """
import sys
sys.modules["msgspec"] = None
from fastapi import FastAPI
from toploc_proxy.engines.vllm.endpoint import ToplocEndpoint
from toploc_proxy.settings import Settings
plugin = ToplocEndpoint()
Settings(channel="/nowhere").to_environ()
try:
    plugin.attach_router(FastAPI())
except ImportError as error:
    print(error.name)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split()[-1] == "msgspec"
