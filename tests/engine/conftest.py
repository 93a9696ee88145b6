"""One honest server for all engine tests, and others for those that ask."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from asking import MODEL, Api, hold
from options import NAME, SERVE, THINKING
from toploc_proxy.local_server import LocalServer
from warm import Warm, WarmServer

from models import alter
from toploc.receipts.keys import SigningKey
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey

REPOSITORY = Path(__file__).parents[2]
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-scale-out"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def start() -> Callable[..., LocalServer]:
    """A server of the bundled model with more options, started as users start it; to be used in a `with`."""

    def make(*options: str, **environment: str) -> LocalServer:
        return LocalServer([str(MODEL), *SERVE, *options], environment=environment)

    return make


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with Warm() as process:
        yield process


@pytest.fixture(scope="session")
def launch(warm: Warm) -> Callable[..., LocalServer]:
    """A server with more options, in a sixth of the time; to be used in a `with`."""

    def make(
        *options: str, model: Path = MODEL, command: Sequence[str] | None = None, **environment: str
    ) -> LocalServer:
        return WarmServer(warm, [str(model), *SERVE, *options], command=command, environment=environment)

    return make


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublicKey]:
    """The file of the server's key and its public half."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    return path, SigningKey.create(path).public


@pytest.fixture(scope="session")
def server(signing: tuple[Path, PublicKey]) -> Iterator[LocalServer]:
    key, store = str(signing[0]), str(signing[0].with_name("receipts.db"))
    options = ["--toploc-signing-key", key, "--toploc-receipts", store, "--toploc-trusted-keys", key]
    with LocalServer([str(MODEL), *SERVE, *TOOLS, *THINKING, *options]) as local:
        yield local


@pytest.fixture(scope="session")
def verifier(launch: Callable[..., LocalServer]) -> Iterator[LocalServer]:
    """A server that does nothing but verify, with a key, low limits and the paper's thresholds."""
    limits = {"concurrency": 2, "tokens": 300, "body-bytes": 200_000}
    flags = [part for name, value in limits.items() for part in (f"--toploc-max-verify-{name}", str(value))]
    options = ["--toploc-role", "verifier", "--api-key", "s3cret", "--toploc-thresholds", "paper-bfloat16", *flags]
    with launch(*options) as local:
        yield local


@pytest.fixture(scope="module")
def plain(launch: Callable[..., LocalServer]) -> Iterator[Api]:
    """`vllm serve` with the flags of `server`, less ours."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "serving" / "plain.py")]
    with launch(*TOOLS, *THINKING, command=command) as local, Api(local.url) as api:
        yield api


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


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
def calibrated() -> Thresholds:
    return Thresholds.load(NAME)


@pytest.fixture(scope="session")
def verified(prefill: TransformersPrefill, calibrated: Thresholds) -> Callable[..., ToplocProofs]:
    """`asking.hold`, by the honest model and its bounds where a test names no others."""
    return partial(hold, engine=prefill, thresholds=calibrated)


@pytest.fixture(scope="module", params=["int4", "finetuned"])
def impostor(
    request: pytest.FixtureRequest, launch: Callable[..., LocalServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    """Client of a server that runs an altered copy under the honest model's name."""
    copy = alter.make(request.param, MODEL, tmp_path_factory.mktemp("altered") / request.param)
    with (
        launch(model=copy) as local,
        openai.OpenAI(base_url=f"{local.url}/v1", api_key="none", max_retries=0) as sdk,
    ):
        yield sdk
