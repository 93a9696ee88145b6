"""One honest server for all engine tests, and servers of altered copies for those that ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import alter
import openai
import pytest
from toploc_proxy.local_server import LocalServer

from toploc.prefill import TransformersPrefill
from toploc.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
NAME = "toploc-mini"
SERVE = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    with LocalServer([str(MODEL), *SERVE]) as local:
        yield local


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def prefill() -> TransformersPrefill:
    """The honest model in another engine."""
    return TransformersPrefill(MODEL)


@pytest.fixture(scope="session")
def calibrated() -> Thresholds:
    return Thresholds.load(NAME)


@pytest.fixture(scope="module", params=["int4", "finetuned"])
def impostor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Client of a server that runs an altered copy under the honest model's name."""
    copy = alter.make(request.param, MODEL, tmp_path_factory.mktemp("altered") / request.param)
    with (
        LocalServer([str(copy), *SERVE]) as local,
        openai.OpenAI(base_url=f"{local.url}/v1", api_key="none", max_retries=0) as sdk,
    ):
        yield sdk
