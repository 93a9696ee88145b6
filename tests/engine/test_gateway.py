"""The gateway before a real server, which also verifies: every route's answers are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from options import NAME
from parties import Running, gateway_before

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc_proxy.local_server import LocalServer

GREEDY = {"temperature": 0}
QUESTION: list[Any] = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def gateway(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with gateway_before(server.url, NAME, "key", tmp_path_factory.mktemp("gateway")) as running:
        yield running


def test_every_route_is_accepted(gateway: Running) -> None:
    sampled: dict[str, Any] = {"model": NAME, "temperature": 0.8, "max_tokens": 40}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="key", max_retries=0) as client:
        client.chat.completions.create(messages=QUESTION, **sampled)
        list(client.chat.completions.create(messages=QUESTION, stream=True, n=2, **sampled))
        client.completions.create(prompt=["one, two", "January"], **sampled)
        client.responses.create(model=NAME, input="List the months.", temperature=0)
        list(client.responses.create(model=NAME, input="List the months.", temperature=0, stream=True))
        assert NAME in [model.id for model in client.models.list()]
    with anthropic.Anthropic(base_url=gateway.url, api_key="key", max_retries=0) as client:
        client.messages.create(model=NAME, max_tokens=40, messages=QUESTION, extra_body=GREEDY)
        with client.messages.stream(model=NAME, max_tokens=40, messages=QUESTION, extra_body=GREEDY) as events:
            assert "".join(events.text_stream)
    assert gateway.upstream()["answers"] == {NAME: {"accepted": 7}}


def test_sampled_answers_have_the_gateways_seed(gateway: Running) -> None:
    body = {"model": NAME, "messages": QUESTION, "temperature": 1, "max_tokens": 40}
    reply = gateway.http.post("/v1/chat/completions", json=body)
    [choice] = reply.json()["toploc_proofs"]["choices"]
    report = reply.headers["toploc-report"]
    assert gateway.http.get(f"/toploc/reports/{report}/evidence").json()["request"]["seed"] == choice["seed"]
    tokens = [c for c in gateway.report(reply)["report"]["checks"] if c["name"] == "tokens"]
    assert [check["status"] for check in tokens] == ["passed"]
