"""What is done with an answer that is not accepted, by each policy; and with the upstream that gave it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from lying_provider import EVIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parties import Provider, Running, VerifierApp


def lies(response: dict[str, Any]) -> None:
    response["choices"][0]["message"]["content"] = EVIL


def proves_nothing(response: dict[str, Any]) -> None:
    lies(response)
    response.pop("toploc_proofs")


def undecided(report: dict[str, Any]) -> None:
    report["verdict"] = "undecided"
    report["checks"][0].update(status="undecided", reason="unrenderable")


def forever(**policy: Any) -> dict[str, Any]:
    """A policy under which an upstream stays, whatever it does."""
    return {**policy, "quarantine": {"after": []}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("change", "verdict"), [(lies, "rejected"), (proves_nothing, "missing")])
def test_nothing_of_a_refused_answer_goes_out(
    start: Callable[..., Running], provider: Provider, stream: bool, change: Any, verdict: str
) -> None:
    provider.lying.change = change
    gateway = start(provider, policy=forever())
    reply = gateway.ask(provider, stream=stream)
    assert reply.status_code == 424
    assert EVIL[:7] not in reply.text
    error = reply.json()["error"]
    assert (error["code"], error["type"], error["param"]) == (verdict, "FailedDependencyError", None)
    assert reply.headers["toploc-verdict"] == verdict
    assert reply.headers["toploc-tried"] == f"one={verdict}"
    assert reply.headers["x-should-retry"] == "false"
    assert gateway.report(reply)["verdict"] == verdict
    evidence = gateway.http.get(f"/toploc/reports/{reply.headers['toploc-report']}/evidence")
    assert EVIL in json.dumps(evidence.json()["response"])
    assert gateway.metric("toploc:gateway_answers_total", upstream="one", model="toploc-mini", verdict=verdict) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("change", "verdict"), [(lies, "rejected"), (proves_nothing, "missing")])
def test_the_next_upstream_is_asked_and_the_reply_says_so(
    start: Callable[..., Running], provider: Provider, other: Provider, stream: bool, change: Any, verdict: str
) -> None:
    provider.lying.change = change
    gateway = start(provider, other, policy=forever(on_rejected="next", on_missing="next"))
    reply = gateway.ask(provider, stream=stream)
    assert reply.status_code == 200
    assert EVIL[:7] not in reply.text
    assert reply.headers["toploc-upstream"] == "two"
    assert reply.headers["toploc-tried"] == f"one={verdict}"
    assert reply.headers["toploc-verdict"] == "accepted"
    other.lying.change = change
    refused = gateway.ask(provider, stream=stream)
    assert (refused.status_code, refused.headers["toploc-tried"]) == (424, f"one={verdict}, two={verdict}")


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_delivered_where_the_policy_warns(
    start: Callable[..., Running], provider: Provider, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = start(provider, policy=forever(on_rejected="warn", on_missing="warn"))
    for change, verdict in ((lies, "rejected"), (proves_nothing, "missing")):
        provider.lying.change = change
        reply = gateway.ask(provider, stream=stream)
        assert (reply.status_code, reply.headers["toploc-verdict"]) == (200, verdict)
        assert EVIL in reply.text.replace('"}, "finish_reason": null}]', "") or stream
        assert verdict in caplog.text or "no proofs" in caplog.text


@pytest.mark.parametrize("action", ["fail", "next", "warn"])
def test_nobody_can_tell(
    start: Callable[..., Running], provider: Provider, other: Provider, verifier_app: VerifierApp, action: str
) -> None:
    asked = []

    def first(report: dict[str, Any]) -> None:
        asked.append(report)
        if len(asked) == 1:
            undecided(report)

    verifier_app.change = first
    gateway = start(provider, other, policy={"on_undecided": action})
    reply = gateway.ask(provider)
    assert reply.status_code == (424 if action == "fail" else 200)
    expected = {"fail": "undecided", "next": "accepted", "warn": "undecided"}[action]
    assert reply.headers["toploc-verdict"] == expected
    assert gateway.upstream()["state"] == "trusted"  # it accuses nobody


@pytest.mark.parametrize("action", ["fail", "next", "warn"])
def test_no_verifier_can_be_asked(
    start: Callable[..., Running], provider: Provider, other: Provider, verifier_app: VerifierApp, action: str
) -> None:
    verifier_app.down = True
    gateway = start(provider, other, policy={"on_unavailable": action})
    reply = gateway.ask(provider)
    assert reply.status_code == (200 if action == "warn" else 424)
    assert reply.headers["toploc-verdict"] == "unavailable"
    tried = {"fail": "one=unavailable", "next": "one=unavailable, two=unavailable", "warn": None}[action]
    assert reply.headers.get("toploc-tried") == tried
    assert gateway.report(reply)["verdict"] == "pending"


def test_a_share_is_checked_and_the_rest_is_looked_at(
    start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp
) -> None:
    gateway = start(provider, policy={"audit_rate": 0.0})
    reply = gateway.ask(provider)
    assert (reply.headers["toploc-verdict"], verifier_app.asked) == ("unchecked", [])
    assert "toploc-report" not in reply.headers
    provider.lying.fresh = False
    assert gateway.ask(provider).status_code == 200
    replayed = gateway.ask(provider, messages=[{"role": "user", "content": "Another question"}])
    assert (replayed.status_code, replayed.headers["toploc-verdict"]) == (424, "rejected")


def test_all_answers_are_kept_if_told(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, policy={"audit_rate": 0.0}, store={"evidence": "all"})
    reply = gateway.ask(provider)
    assert gateway.report(reply)["verdict"] == "unchecked"


@pytest.mark.parametrize("stream", [False, True])
def test_a_lie_that_is_found_in_the_background_ends_the_trust(
    start: Callable[..., Running], provider: Provider, other: Provider, stream: bool
) -> None:
    provider.lying.change = lies
    gateway = start(provider, other, policy={"when": "background"})
    reply = gateway.ask(provider, stream=stream)
    assert (reply.status_code, reply.headers["toploc-verdict"]) == (200, "pending")
    gateway.eventually(lambda: gateway.upstream()["state"] == "quarantined")
    assert gateway.upstream()["answer"] == reply.headers["toploc-report"]
    assert gateway.upstream()["answers"]["toploc-mini"] == {"rejected": 1}
    assert gateway.ask(provider, stream=stream).headers["toploc-upstream"] == "two"
    assert gateway.metric("toploc:gateway_quarantined", upstream="one") == 1


def test_quarantine_and_return(start: Callable[..., Running], provider: Provider) -> None:
    """On probation all answers are checked before they are delivered, whatever the rate."""
    quarantine = {"seconds": 1.5, "probation": 2}
    gateway = start(provider, policy={"when": "background", "audit_rate": 0.0, "quarantine": quarantine})
    provider.lying.fresh = False
    assert gateway.ask(provider).headers["toploc-verdict"] == "unchecked"
    gateway.ask(provider, messages=[{"role": "user", "content": "x"}])  # the same id for another request
    gateway.eventually(lambda: gateway.upstream()["state"] == "quarantined")
    refused = gateway.ask(provider)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "quarantined")
    health = gateway.http.get("/toploc/health")
    assert (health.status_code, health.json()["problems"]) == (503, ["upstreams"])
    provider.lying.fresh = True
    gateway.eventually(lambda: gateway.upstream()["state"] == "probation")
    assert gateway.http.get("/toploc/health").status_code == 200
    assert gateway.ask(provider, stream=True).headers["toploc-verdict"] == "accepted"
    assert gateway.upstream()["probation"] == 1
    assert gateway.ask(provider).headers["toploc-verdict"] == "accepted"
    assert gateway.upstream()["state"] == "trusted"
    assert gateway.ask(provider).headers["toploc-verdict"] == "unchecked"


def test_a_lie_on_probation_reaches_nobody(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, policy={"when": "background", "quarantine": {"seconds": "never"}})
    gateway.http.post("/toploc/upstreams/one/quarantine")
    gateway.http.post("/toploc/upstreams/one/return")
    provider.lying.change = lies
    reply = gateway.ask(provider, stream=True)
    assert (reply.status_code, reply.headers["toploc-verdict"]) == (424, "rejected")
    standing = gateway.upstream()
    assert (standing["state"], standing["until"]) == ("quarantined", None)


def test_an_alarm_of_the_sequential_test(
    start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp
) -> None:
    """Each answer is accepted, and all of them together are not what an honest provider gives."""

    def pooled(report: dict[str, Any]) -> None:
        alarms = {"int8": {"threshold": 4.0, "audits": 100, "false_alarm": 0.01}}
        check = {"name": "pooled", "status": "passed", "message": "", "figures": {"evidence": {"int8": 1.5}}}
        report["checks"].append({**check, "thresholds": {"name": "mini", "alarms": alarms}})

    verifier_app.change = pooled
    gateway = start(provider)
    for number in (1, 2):
        assert gateway.ask(provider).headers["toploc-verdict"] == "accepted"
        [test] = gateway.upstream()["tests"]
        assert (test["answers"], test["value"], test["threshold"]) == (number, 1.5 * number, 4.0)
        assert (test["model"], test["test"]) == ("toploc-mini", "mini, against int8")
        assert gateway.upstream()["state"] == "trusted"
    gateway.ask(provider)
    assert gateway.upstream()["state"] == "quarantined"
    assert gateway.upstream()["reason"] == "alarm: mini, against int8, after 3 answers of toploc-mini"
    gateway.http.post("/toploc/upstreams/one/return")
    assert gateway.upstream()["tests"] == []


# What is repeated


def test_what_was_not_sent_goes_to_the_next(start: Callable[..., Running], provider: Provider, other: Provider) -> None:
    class Away:
        url = "http://127.0.0.1:9"

    gateway = start(Away(), other)
    reply = gateway.ask(provider)
    assert (reply.status_code, reply.headers["toploc-tried"]) == (200, "one=unreachable")
    alone = start(Away()).ask(provider)
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "unreachable")
    assert alone.headers["retry-after"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_upstream(start: Callable[..., Running], provider: Provider, other: Provider, status: int) -> None:
    provider.lying.content, provider.status = b'{"error": {}}', status
    gateway = start(provider, other)
    assert gateway.ask(provider).headers["toploc-tried"] == "one=busy"
    gateway.http.post("/toploc/upstreams/two/quarantine")
    alone = gateway.ask(provider)  # its own words, since nobody else is there to ask
    assert (alone.status_code, alone.content) == (status, b'{"error": {}}')


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("action", ["fail", "next"])
def test_what_broke_off_is_not_repeated_unless_told(
    start: Callable[..., Running], provider: Provider, other: Provider, action: str, stream: bool
) -> None:
    provider.breaks_after = 3 if stream else 0
    gateway = start(provider, other, policy={"on_broken": action})
    reply = gateway.ask(provider, stream=stream)
    assert len(provider.requests) == 1
    if action == "fail":
        assert (reply.status_code, reply.json()["error"]["code"], other.requests) == (424, "broken", [])
        assert "may have been billed" in reply.json()["error"]["message"]
    else:
        assert (reply.status_code, reply.headers["toploc-tried"]) == (200, "one=broken")


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_upstreams_failure_is_not_repeated(
    start: Callable[..., Running], provider: Provider, other: Provider, status: int
) -> None:
    provider.lying.content, provider.status = b"{}", status
    assert start(provider, other).ask(provider).status_code == status
    assert other.requests == []


def test_a_slow_upstream(start: Callable[..., Running], provider: Provider) -> None:
    provider.pause = 5
    gateway = start(provider, timeouts={"read": 0.3})
    started = time.monotonic()
    reply = gateway.ask(provider)
    assert (reply.status_code, reply.json()["error"]["code"]) == (424, "broken")
    assert time.monotonic() - started < 4
    drips = start(provider, timeouts={"total": 0.5})
    provider.pause = 0.1
    assert drips.ask(provider, stream=True).status_code == 424
