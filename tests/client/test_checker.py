"""What a client does with answers where something is wrong beside them: nothing raises that should not, and nothing is
lost without a word. Real servers: tests/engine."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from toploc_client import Judgement, MissingProofs, Options, RejectedResponse, Report, Verifier
from toploc_client.answer import Answer
from toploc_client.checker import Checker
from toploc_client.exchange import Exchange
from toploc_client.synchronous import finishing

from toploc.receipts.keys import SigningKey
from toploc.report import REQUIRED, Check

EVIDENCE = json.loads((Path(__file__).parents[1] / "toploc" / "evidence" / "greedy.json").read_text("utf-8"))
ACCEPTED = Report.of([Check(name=name, status="passed", message="fine") for name in REQUIRED])  # type: ignore[arg-type]


class Response:
    """Stands for the SDK's object, which is only handed on."""


def exchange(receipt: Any = None) -> Exchange:
    response = copy.deepcopy(EVIDENCE["response"])
    if receipt is not None:
        response["toploc_proofs"]["choices"][0]["receipt"] = receipt
    return Exchange(json.dumps(EVIDENCE["request"]).encode(), json.dumps(response).encode())


def finish(checker: Checker, given: Exchange) -> None:
    finishing.finish(checker, Answer(given, Response(), given.proofs))


@pytest.fixture
def key(tmp_path: Path) -> Any:
    return SigningKey.create(tmp_path / "key.pem").public


@pytest.mark.parametrize("receipt", [{}, [], "x", {"statement": {}, "signature": ""}])
@pytest.mark.parametrize("verifier", [(), lambda _: ACCEPTED], ids=["keys alone", "verifier"])
def test_a_malformed_receipt_is_a_rejection(key: Any, receipt: Any, verifier: Any) -> None:
    """Else a provider could have its answers pass by: it would be an error of another kind, or only a line of a log."""
    seen: list[Judgement] = []
    inline = Checker(Options(verifier=verifier, trusted_keys=[key]))
    with pytest.raises(RejectedResponse, match="receipt"):
        finish(inline, exchange(receipt))
    reaction = {"when": "background", "on_reject": lambda _, report: seen.append(report)}
    behind = Checker(Options(verifier=verifier, trusted_keys=[key], **reaction))
    finish(behind, exchange(receipt))
    assert behind.flush(30)
    behind.close()
    assert (inline.counts.rejected, behind.counts.rejected) == (1, 1)
    assert [check.reason for report in seen for check in report.checks if check.name == "receipt"] == ["malformed"]


@pytest.mark.parametrize("rule", ["all", "any", "majority"])
def test_keys_without_a_verifier(key: Any, rule: Any) -> None:
    """The receipt alone decides, whatever the rule for verifiers."""
    passed, failed = (Check(name="receipt", status=status, message="") for status in ("passed", "failed"))  # type: ignore[arg-type]
    assert Judgement.by(rule, [], [passed]).accepted
    assert Judgement.by(rule, [], [failed]).verdict == "rejected"
    with pytest.raises(RejectedResponse):
        finish(Checker(Options(trusted_keys=[key], rule=rule)), exchange())


def test_a_spool_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    checker = Checker(Options(verifier=Verifier("http://127.0.0.1:9", retries=0), spool="/dev/full"))
    finish(checker, exchange())
    assert (checker.counts.spooled, checker.counts.lost) == (0, 1)
    assert EVIDENCE["response"]["id"] in caplog.text
    assert "No space left on device" in caplog.text


def test_a_check_that_fails_unforeseen_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("unforeseen")

    checker = Checker(Options(verifier=lambda _: ACCEPTED, when="background", spool=tmp_path / "spool.jsonl"))
    monkeypatch.setattr(checker, "ask", fail)
    finish(checker, exchange())
    assert checker.flush(30)
    checker.close()
    assert checker.counts.spooled == 1
    assert "unforeseen" in caplog.text


@pytest.mark.parametrize("when", ["inline", "background"])
def test_a_coroutine_function_for_rejected_answers_is_run(key: Any, when: str) -> None:
    seen: list[Judgement] = []

    async def note(_: Any, report: Judgement) -> None:
        seen.append(report)

    checker = Checker(Options(trusted_keys=[key], when=when, on_reject=note))
    finish(checker, exchange({}))
    checker.flush(30)
    checker.close()
    assert [report.verdict for report in seen] == ["rejected"]


def test_what_a_provider_says_does_not_move_the_cursor(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the error of an answer without proofs nor in the line on one that is lost."""
    escape = "\x1b]0;owned\x07"
    field = {"dtype": "bfloat16", "model": "m", "error": {"code": "internal_error", "message": escape}}
    without = Exchange(b"{}", json.dumps({"toploc_proofs": field}).encode())
    with pytest.raises(MissingProofs) as raised:
        finish(Checker(Options(require_proofs=True)), without)
    assert str(raised.value).isprintable()
    assert "owned" in str(raised.value)
    lost = Exchange(b"{}", json.dumps({**EVIDENCE["response"], "id": escape}).encode())
    finish(Checker(Options(verifier=Verifier("http://127.0.0.1:9", retries=0), spool="/dev/full")), lost)
    said = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert [line.isprintable() for line in said] == [True]
    assert "owned" in said[0]
