"""Upstreams that prove nothing, whose answers are held to their text alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from lying_provider import recorded
from parties import Provider
from toploc_gateway.config import read_config
from toploc_gateway.errors import InvalidConfig

if TYPE_CHECKING:
    from pathlib import Path

Start = "Callable[..., Running]"
PLAIN = {"proofs": "none"}


def plain(response: dict[str, Any]) -> None:
    response.pop("toploc_proofs")


def altered(response: dict[str, Any]) -> None:
    """Text of a fine-tuned copy to the same request."""
    plain(response)
    other = copy.deepcopy(recorded("finetuned-greedy")["response"])
    response["choices"], response["usage"] = other["choices"], other["usage"]


@pytest.fixture
def provider() -> Any:
    with Provider.served() as made:
        made.lying.change = plain
        yield made


@pytest.mark.parametrize("proven", [False, True])
def test_an_honest_answer_is_weak_and_never_accepted(start: Start, provider: Provider, proven: bool) -> None:
    if proven:
        provider.lying.change = lambda _: None
    gateway = start(provider, upstream=PLAIN)
    reply = gateway.ask(provider)
    assert reply.status_code == 200
    assert reply.headers["toploc-verdict"] == "weak"
    report = gateway.report(reply)
    assert (report["verdict"], report["report"]["verdict"]) == ("weak", "undecided")
    assert gateway.metric("toploc:gateway_answers_total", upstream="one", model="toploc-mini", verdict="weak") == 1
    assert "seed" not in provider.requests[0][3].decode()


def test_text_of_another_model_is_refused_and_ends_the_trust(start: Start, provider: Provider) -> None:
    provider.lying.change = altered
    gateway = start(provider, upstream=PLAIN)
    reply = gateway.ask(provider)
    assert (reply.status_code, reply.json()["error"]["code"]) == (424, "rejected")
    assert gateway.upstream()["state"] == "quarantined"


def test_in_the_background_it_was_delivered(start: Start, provider: Provider) -> None:
    provider.lying.change = altered
    gateway = start(provider, upstream={**PLAIN, "policy": {"when": "background"}})
    reply = gateway.ask(provider)
    assert (reply.status_code, reply.headers["toploc-verdict"]) == (200, "pending")
    gateway.eventually(lambda: gateway.upstream()["state"] == "quarantined")
    assert gateway.report(reply)["verdict"] == "rejected"


@pytest.mark.parametrize("when", ["inline", "background"])
@pytest.mark.parametrize(("counts", "verdict"), [(True, "weak"), (False, "undecided")])
def test_streams(start: Start, provider: Provider, when: str, counts: bool, verdict: str) -> None:
    """Nothing of one is missing: an upstream that proves nothing sends nothing. One that says no `usage` is delivered
    too."""

    def change(response: dict[str, Any]) -> None:
        plain(response)
        if not counts:
            response.pop("usage")

    provider.lying.change = change
    gateway = start(provider, upstream={**PLAIN, "policy": {"when": when}})
    reply = gateway.ask(provider, stream=True)
    assert reply.status_code == 200
    assert "[DONE]" in reply.text
    stored = gateway.eventually(lambda: (r := gateway.report(reply))["verdict"] != "pending" and r)
    assert stored["verdict"] == verdict
    assert stored["reason"] == (None if counts else "count_unknown")
    assert gateway.upstream()["state"] == "trusted"


def test_one_that_was_not_drawn_is_unchecked(start: Start, provider: Provider) -> None:
    for when in ("inline", "background"):
        gateway = start(provider, upstream={**PLAIN, "policy": {"when": when, "audit_rate": 0}})
        for stream in (False, True):
            assert gateway.ask(provider, stream=stream).headers["toploc-verdict"] == "unchecked"


def test_an_undecided_one_is_refused_where_its_own_policy_says_so(start: Start, provider: Provider) -> None:
    provider.lying.change = lambda r: (plain(r), r["usage"].update(completion_tokens=3))
    for own, status in (({}, 200), ({"on_undecided": "fail"}, 424)):
        gateway = start(provider, policy={"on_undecided": "fail"}, upstream={**PLAIN, "policy": own})
        assert gateway.ask(provider).status_code == status


def test_on_probation_answers_that_show_nothing_count(start: Start, provider: Provider) -> None:
    gateway = start(provider, upstream={**PLAIN, "policy": {"quarantine": {"probation": 2}}})
    gateway.http.post("/toploc/upstreams/one/quarantine")
    gateway.http.post("/toploc/upstreams/one/return")
    for state in ("probation", "trusted"):
        gateway.ask(provider)
        assert gateway.upstream()["state"] == state


def test_the_sequential_test_runs_over_tokens(start: Start, provider: Provider) -> None:
    gateway = start(provider, upstream=PLAIN)
    for _ in range(2):
        gateway.ask(provider)
    tests = {one["test"]: one for one in gateway.upstream()["tests"]}
    assert set(tests) == {f"margin_ratios {times}" for times in ("1.5", "2", "3", "5", "10")}
    assert {one["answers"] for one in tests.values()} == {2}


def test_an_alarm_over_answers_of_which_none_is_rejected(start: Start, provider: Provider, verifier_app: Any) -> None:
    def seems_far(report: dict[str, Any]) -> None:
        for check in report["checks"]:
            if check["name"] == "tokens":
                check["figures"]["margin_ratios"] = {"2": 3.0}

    verifier_app.change = seems_far
    gateway = start(provider, upstream=PLAIN)
    asked = 0
    while gateway.upstream()["state"] == "trusted":
        assert gateway.ask(provider).headers["toploc-verdict"] == "weak"
        asked += 1
        assert asked < 10
    assert asked == 4  # log(1000 / 0.01) is 11.5
    assert "margin_ratios 2" in gateway.upstream()["reason"]


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ({"proofs": "given", "sampling": [{"temperature": 1}]}, "sampling"),
        ({"proofs": "none", "sampling": [{"seed": 1}]}, "sampling"),
        ({"proofs": "none", "sampling": []}, "sampling"),
    ],
)
def test_options_that_are_none(tmp_path: Path, upstream: dict[str, Any], said: str) -> None:
    one = {"name": "a", "url": "http://x/v1", "models": ["m"], "verifiers": [{"url": "http://y"}], **upstream}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"upstreams": [one]}))
    with pytest.raises(InvalidConfig, match=said):
        read_config(path, {})
