"""One server of SGLang for all tests, by `toploc sglang` on a CPU. They run in an environment of their own
(`make test-sglang`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from asking import MODEL, Api, hold
from collector import Collector
from options import NAME
from sglang_server import COMMAND, ENVIRONMENT, HERE, SERVE
from toploc_proxy.local_server import LocalServer

from toploc.receipts.keys import SigningKey
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.sglang)


@pytest.fixture(scope="session")
def launch() -> Callable[..., LocalServer]:
    """A server of the bundled model with more options; to be used in a `with`."""

    def make(*options: str, **environment: str) -> LocalServer:
        return LocalServer([*SERVE, *options], command=COMMAND, environment={**ENVIRONMENT, **environment})

    return make


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublicKey]:
    """The file of the server's key and its public half."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    return path, SigningKey.create(path).public


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def server(
    launch: Callable[..., LocalServer], signing: tuple[Path, PublicKey], collector: Collector
) -> Iterator[LocalServer]:
    key = str(signing[0])
    options = ["--enable-metrics", "--enable-trace", "--toploc-signing-key", key, "--toploc-trusted-keys", key]
    environment = {**collector.environment, "SGLANG_OTLP_EXPORTER_SCHEDULE_DELAY_MILLIS": "100"}
    with launch(*options, *collector.options, **environment) as local:
        yield local


@pytest.fixture(scope="session")
def api(server: LocalServer) -> Iterator[Api]:
    with Api(server.url) as api:
        yield api


@pytest.fixture(scope="session")
def api_of() -> type[Api]:
    return Api


@pytest.fixture(scope="session")
def prefill() -> TransformersPrefill:
    """The honest model in another engine."""
    return TransformersPrefill(MODEL)


@pytest.fixture(scope="session")
def verified(prefill: TransformersPrefill) -> Callable[..., ToplocProofs]:
    """`asking.hold`, by the honest model and its bounds."""
    return partial(hold, engine=prefill, thresholds=Thresholds.load(NAME))
