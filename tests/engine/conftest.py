"""One honest server for all engine tests, and others for those that ask."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import openai
import pytest
from options import NAME, SERVE, THINKING
from toploc_proxy.local_server import LocalServer
from warm import Warm, WarmServer

from models import alter
from toploc.proofs.verdict import verify_activations
from toploc.protocol import ToplocProofs, num_chunks, token_ids_sha256
from toploc.receipts.keys import SigningKey
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from toploc.receipts.keys import PublicKey

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "models" / "toploc-mini"
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-scale-out"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


class Api:
    """JSON requests to a server of the bundled model, by any number of threads."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        response = self.http.post(path, json={"model": NAME, **body})
        assert response.status_code == 200, response.text
        return response.json()

    def chat(self, messages: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
        return self.post("/v1/chat/completions", messages=messages, **body)

    def report(self, response: dict[str, Any], **body: Any) -> dict[str, Any]:
        """The server's own report on a request and its response."""
        reply = self.http.post("/v1/toploc/verify", json={"request": {"model": NAME, **body}, "response": response})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The JSON of every event."""
        response = self.http.post(path, json={"model": NAME, "stream": True, **body})
        assert response.status_code == 200, response.text
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    def metric(self, name: str) -> float:
        """A counter or gauge, summed over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert values, f"no metric {name}"
        return sum(values)


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
    """Holds every chunk of a `toploc_proofs` field against the prefill of its prompt, and gives the field back.

    As many choices belong to each prompt; a prompt is a list of messages or of token ids.
    """

    def check(
        field: dict[str, Any],
        *prompts: Sequence[Any],
        engine: TransformersPrefill = prefill,
        thresholds: Thresholds = calibrated,
        **template: Any,
    ) -> ToplocProofs:
        proofs = ToplocProofs.model_validate(field)
        assert proofs.choices, proofs.error
        for place, choice in enumerate(proofs.choices):
            assert choice.error is None
            prompt = prompts[place * len(prompts) // len(proofs.choices)]
            if not isinstance(prompt[0], int):
                prompt = engine.render(prompt, **template)
            digest = choice.prompt or proofs.prompt
            assert digest.sha256 == token_ids_sha256(prompt)
            assert len(choice.proofs) == num_chunks(len(choice.token_ids)) > 0
            states = engine.hidden_states(prompt, choice.token_ids)
            verdict = verify_activations(choice.proofs, states, thresholds=thresholds)
            assert verdict.passed, verdict.chunks
        return proofs

    return check


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
