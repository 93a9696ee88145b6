"""The newest vLLM's Python files over the installed one's compiled part: proven answers on every route, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from overlay import overlay
from reliance_table import published_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc_proxy.local_server import LocalServer

pytestmark = pytest.mark.compat

NEWEST = published_versions()[-1]
CHAT = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def newest(start: Callable[..., LocalServer], api_of: Callable[[str], Any]) -> Iterator[Any]:
    with (
        start("--toploc-seed-requests", "--no-enable-chunked-prefill", **overlay(NEWEST)) as local,
        api_of(local.url) as api,
    ):
        yield api


def test_it_is_the_newest(newest: Any) -> None:
    engine = newest.http.get("/v1/toploc").json()["engine"]
    assert [engine[name] for name in ("name", "version", "model_runner")] == ["vllm", NEWEST, "v1"]


ROUTES = {
    "chat": ("/v1/chat/completions", {"messages": STORY, "max_tokens": 70}),
    "completion": ("/v1/completions", {"prompt": ["Once upon a time", "Water is"], "max_tokens": 40}),
    "response": ("/v1/responses", {"input": "What is 17 + 25?"}),
    "message": ("/v1/messages", {"messages": CHAT, "max_tokens": 40}),
    "batch": ("/v1/chat/completions/batch", {"messages": [CHAT, STORY], "max_tokens": 40}),
}


GREEDY, SAMPLED = {"temperature": 0}, {"temperature": 1}
CASES = [*((route, options) for route in ROUTES for options in (GREEDY, SAMPLED)), ("chat", {"n": 2, **SAMPLED})]


@pytest.mark.parametrize(("route", "options"), CASES)
def test_answers_are_proven_and_accepted(newest: Any, route: str, options: dict[str, Any]) -> None:
    """Sampled ones by replay of their seeds."""
    path, body = ROUTES[route]
    body = body | options
    report = newest.report(newest.post(path, **body), **body)
    assert report["verdict"] == "accepted", str(report)
    checks = {(check["name"], check["status"]) for check in report["checks"]}
    assert {("proofs", "passed"), ("tokens", "passed")} <= checks, report
    assert not {status for _, status in checks} & {"failed", "undecided"}, report


@pytest.mark.parametrize(("route", "choices"), [("chat", 1), ("completion", 2), ("response", 1), ("message", 1)])
def test_streams_carry_proofs(newest: Any, route: str, choices: int) -> None:
    path, body = ROUTES[route]
    events = newest.stream(path, **body, **GREEDY)
    fields = [event.get("toploc_proofs") or event.get("response", {}).get("toploc_proofs") for event in events]
    proven = [field for field in fields if field][-1]["choices"]
    assert len(proven) == choices
    assert all(choice["proofs"] for choice in proven)
