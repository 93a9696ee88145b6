"""A provider, a verifier and a gateway, each behind a socket of its own; no engine runs here."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from parties import Provider, Running, Served, VerifierApp, config_of
from recorded import ROOT
from toploc_gateway.app import application
from toploc_gateway.config import read_config

from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def mini() -> TransformersVerifier:
    prefill = TransformersPrefill(ROOT / "models" / "toploc-mini")
    return TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))


@pytest.fixture(scope="session")
def verifier_app(mini: TransformersVerifier) -> VerifierApp:
    return VerifierApp(mini)


@pytest.fixture(scope="session")
def _verifier(verifier_app: VerifierApp) -> Iterator[Served]:
    with Served(verifier_app) as served:
        yield served


@pytest.fixture
def verifier(_verifier: Served, verifier_app: VerifierApp) -> Served:
    verifier_app.down, verifier_app.delay, verifier_app.asked = False, 0.0, []
    verifier_app.change = lambda _: None
    return _verifier


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider.served() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Provider]:
    with Provider.served() as made:
        yield made


@pytest.fixture(scope="module")
def module_provider() -> Iterator[Provider]:
    with Provider.served() as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, verifier: Served) -> Iterator[Callable[..., Running]]:
    """A gateway before providers, called one, two, …; the file's other parts by name."""
    yield from _starting(tmp_path, verifier)


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory, _verifier: Served) -> Iterator[Callable[..., Running]]:
    """As `start`, for a module: the same gateway for the same parts."""
    made: dict[str, Running] = {}
    for start in _starting(tmp_path_factory.mktemp("gateway"), _verifier):

        def once(*providers: Any, start: Callable[..., Running] = start, **parts: Any) -> Running:
            key = repr((providers, parts))
            made[key] = made.get(key) or start(*providers, **parts)
            return made[key]

        yield once


def _starting(folder: Path, verifier: Served) -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def make(*providers: Any, port: int = 0, upstream: dict[str, Any] | None = None, **parts: Any) -> Running:
            path = folder / "gateway.yaml"
            path.write_text(yaml.safe_dump(config_of(folder, verifier.url, providers, upstream or {}, parts)))
            app = application(read_config(path))
            running = Running(stack.enter_context(Served(app, port)), app.state.gateway)
            stack.callback(running.http.close)
            return running

        yield make


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port: int = made.getsockname()[1]
        return port
