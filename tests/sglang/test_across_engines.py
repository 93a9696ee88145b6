"""Two engines of one model, each of which verifies what the other answers."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asking import MODEL, Api
from options import SERVE
from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc.receipts.keys import PublicKey

pytestmark = pytest.mark.sglang_all

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGE, RESPONSE = "/v1/messages", "/v1/responses"
STORY = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 70}
SUM = {"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 70, "temperature": 0}
GREEDY = {**STORY, "temperature": 0, "ignore_eos": True}
SAMPLED = {**STORY, "temperature": 1}
Json = dict[str, Any]


def python_of_vllm() -> str:
    """The environment of this Python sees vLLM in another's folder, whose Python is vLLM's."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parents[4] / "bin" / "python")


@pytest.fixture(scope="module")
def vllm(signing: tuple[Path, PublicKey]) -> Iterator[Api]:
    key = str(signing[0])
    options = [str(MODEL), *SERVE, "--toploc-signing-key", key, "--toploc-trusted-keys", key]
    command = [python_of_vllm(), "-m", "toploc", "serve"]
    # Without SGLang's stand-ins.
    with LocalServer(options, command=command, environment={"PYTHONPATH": ""}) as server, Api(server.url) as api:
        yield api


@pytest.fixture(params=["vLLM proves", "SGLang proves"])
def engines(request: pytest.FixtureRequest, vllm: Api, api: Api) -> tuple[Api, Api]:
    """Who answers, and who verifies."""
    return (vllm, api) if request.param == "vLLM proves" else (api, vllm)


def answer(prover: Api, path: str, body: Json) -> Json:
    return prover.assembled(path, **body) if body.get("stream") else prover.post(path, **body)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, GREEDY),
        (CHAT, SAMPLED),
        (CHAT, {**SAMPLED, "n": 3}),
        (CHAT, {**SAMPLED, "temperature": 0.7, "top_p": 0.9}),
        (CHAT, SUM),
        (CHAT, {**SUM, "stop": ["= 4"]}),
        (COMPLETION, {"prompt": "Once upon", "max_tokens": 40, "temperature": 0}),
        (COMPLETION, {"prompt": ["Once upon", "The"], "max_tokens": 40, "temperature": 1, "n": 2}),
        (COMPLETION, {"prompt": list(range(300, 312)), "max_tokens": 33, "temperature": 1, "ignore_eos": True}),
        (MESSAGE, SUM),
        (MESSAGE, STORY),
        (RESPONSE, {"input": "What is 17 + 25?", "temperature": 0}),
        (RESPONSE, {"input": SUM["messages"], "temperature": 0.7, "max_output_tokens": 400, "store": False}),
    ],
)
def test_honest_answers_are_accepted(engines: tuple[Api, Api], path: str, body: Json, stream: bool) -> None:
    prover, verifier = engines
    counts = stream and path in (CHAT, COMPLETION)
    asked = {**body, "stream": stream, **({"stream_options": {"include_usage": True}} if counts else {})}
    report = verifier.report(answer(prover, path, asked), **asked)
    assert report["verdict"] == "accepted", report
    checked = report["coverage"].partition("; not checked")[0].replace("weakly: ", "")
    for name in ("model", "prompt", "proofs", "tokens", "response", "receipt"):
        assert name in checked


def reasons(report: Json) -> dict[str, str | None]:
    """Of what did not pass."""
    return {check["name"]: check["reason"] for check in report["checks"] if check["status"] in ("failed", "undecided")}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_responses_at_their_limit(vllm: Api, api: Api, stream: bool) -> None:
    """SGLang ends two tokens before it, which vLLM cannot tell from an answer that was cut short."""
    asked = {"input": "Tell me a story.", "temperature": 1, "max_output_tokens": 20, "stream": stream}
    response = answer(vllm, RESPONSE, asked)
    assert response["usage"]["output_tokens"] == 20
    assert api.report(response, **asked)["verdict"] == "accepted"
    report = vllm.report(answer(api, RESPONSE, asked), **asked)
    assert (report["verdict"], reasons(report)) == ("undecided", {"response": "unrehearsed"})


def test_responses_that_name_no_temperature_are_undecided(engines: tuple[Api, Api]) -> None:
    """SGLang draws them at 0.7, and vLLM at 1."""
    prover, verifier = engines
    asked = {"input": "Tell me a story.", "max_output_tokens": 400}
    report = verifier.report(answer(prover, RESPONSE, asked), **asked)
    assert report["verdict"] == "undecided"
    assert reasons(report)["tokens"] == "constraint"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_altered_responses_are_rejected(engines: tuple[Api, Api], stream: bool) -> None:
    prover, verifier = engines
    asked = {"input": "What is 17 + 25?", "temperature": 0, "stream": stream}
    response = answer(prover, RESPONSE, asked)
    del response["toploc_proofs"]["choices"][0]["receipt"]
    assert verifier.report(response, **asked)["verdict"] == "accepted"
    counted = copy.deepcopy(response)
    counted["usage"]["output_tokens"] += 1
    assert verifier.report(counted, **asked)["verdict"] == "rejected"
    response["output"][0]["content"][0]["text"] += " And more."
    assert verifier.report(response, **asked)["verdict"] == "rejected"


def test_log_probabilities_are_held(engines: tuple[Api, Api]) -> None:
    prover, verifier = engines
    asked = {**SAMPLED, "logprobs": True}
    response = answer(prover, CHAT, asked)
    report = verifier.report(response, **asked)
    assert report["verdict"] == "accepted", report
    response["choices"][0]["logprobs"]["content"][3]["logprob"] -= 1
    assert verifier.report(response, **asked)["verdict"] == "rejected"


def longer(response: Json) -> None:
    response["choices"][0]["message"]["content"] += " And more."


def next_token(response: Json) -> None:
    response["toploc_proofs"]["choices"][0]["token_ids"][40] += 1


def backwards(response: Json) -> None:
    response["toploc_proofs"]["choices"][0]["proofs"].reverse()


def stopped(response: Json) -> None:
    response["choices"][0]["finish_reason"] = "stop"


def counted(response: Json) -> None:
    response["usage"]["completion_tokens"] += 1


def cut(response: Json) -> None:
    choice = response["toploc_proofs"]["choices"][0]
    choice["token_ids"], choice["proofs"] = choice["token_ids"][:64], choice["proofs"][:2]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("change", [longer, next_token, backwards, stopped, counted, cut])
def test_altered_answers_are_rejected(
    engines: tuple[Api, Api], change: Callable[[Json], None], signed: bool, stream: bool
) -> None:
    prover, verifier = engines
    asked = {**GREEDY, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
    response = answer(prover, CHAT, asked)
    change(response)
    if not signed:
        del response["toploc_proofs"]["choices"][0]["receipt"]
    report = verifier.report(response, **asked)
    assert report["verdict"] == "rejected", report


def test_another_requests_answer_is_rejected(engines: tuple[Api, Api]) -> None:
    prover, verifier = engines
    assert verifier.report(answer(prover, CHAT, GREEDY), **SUM)["verdict"] == "rejected"


def test_an_answer_under_the_other_engines_name_is_no_better(engines: tuple[Api, Api]) -> None:
    """What a prover says of itself makes nothing pass."""
    prover, verifier = engines
    response = answer(prover, CHAT, GREEDY)
    del response["toploc_proofs"]["choices"][0]["receipt"]
    for name in ("vllm", "sglang"):
        changed = copy.deepcopy(response)
        changed["toploc_proofs"]["engine"]["name"] = name
        longer(changed)
        assert verifier.report(changed, **GREEDY)["verdict"] == "rejected"
