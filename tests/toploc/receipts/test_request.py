"""The request of a receipt: by its exact bytes, by a form of it that is signed too, or not known."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from toploc.checks.receipt import check_receipt
from toploc.errors import MalformedEvidence
from toploc.evidence.parse import parse_evidence, read_evidence
from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.request import body_sha256, evidence_of, needs_body, request_digest
from toploc.receipts.statement import issue
from toploc.report import Check

RECORDED = Path(__file__).parents[1] / "evidence"
KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
GREEDY = json.loads((RECORDED / "greedy.json").read_text("utf-8"))
TOOLS = json.loads((RECORDED / "tool-call.json").read_text("utf-8"))
LARGE = {**GREEDY["request"], "seed": 2**60}
SWAPPED = {**LARGE, "messages": [{"role": "user", "content": "Count from 1 to 50."}]}


def signed(body: bytes, response: Any = GREEDY["response"], *, exact: bool = True) -> dict[str, Any]:
    """The response as a server signs it that was sent `body`; `exact`: by its bytes too, as servers do now."""
    made = issue(
        KEY,
        ToplocProofs.model_validate(response["toploc_proofs"]),
        response,
        request_sha256=request_digest(body),
        request_body_sha256=body_sha256(body) if exact else None,
        issued_at=1795500000,
    )
    return {**response, "toploc_proofs": json.loads(made.to_json())}


def said(request: Any, response: Any, body: bytes | None = None) -> tuple[str, str | None]:
    [result] = verify_receipt(request, response, [KEY.public], body)
    return result.status, result.reason


def pretty(request: Any) -> bytes:
    """As nobody's SDK writes it."""
    return json.dumps(request, indent=3).encode()


def test_a_large_integer_leaves_no_room_for_another_question() -> None:
    body = pretty(LARGE)
    response = signed(body)
    assert said(LARGE, response, body) == ("passed", None)
    assert said(SWAPPED, response, pretty(SWAPPED)) == ("failed", "request_differs")
    assert said(SWAPPED, response) == ("skipped", "request_unknown")
    assert said(LARGE, response) == ("skipped", "request_unknown")
    assert said({**SWAPPED, "seed": 1}, response) == ("failed", "request_differs")


def test_a_receipt_without_anything_of_the_request() -> None:
    """As servers signed before: it is no receipt for any request, and another answer is still told."""
    response = signed(pretty(LARGE), exact=False)
    assert said(LARGE, response) == said(LARGE, response, pretty(LARGE)) == ("skipped", "request_unknown")
    assert said(LARGE, {**response, "id": "chatcmpl-0"}) == ("failed", "response_differs")
    assert said({**LARGE, "seed": 1}, response) == ("failed", "request_differs")
    [result] = verify_receipt(LARGE, response, ())
    assert (result.status, result.reason) == ("skipped", "request_unknown")


def test_the_bytes_decide_where_they_are_at_hand() -> None:
    body = pretty(GREEDY["request"])
    response = signed(body)
    assert said(GREEDY["request"], response, body) == ("passed", None)
    assert said(GREEDY["request"], response, body + b" ") == ("failed", "request_differs")
    assert said(GREEDY["request"], response) == ("passed", None)
    old = signed(body, exact=False)
    assert said(GREEDY["request"], old, body + b" ") == ("passed", None)


def test_a_body_of_another_request_is_told() -> None:
    """Or the bytes would pass for one question, and another be read."""
    body = pretty(LARGE)
    response = signed(body)
    assert said(SWAPPED, response, body) == ("failed", "request_differs")
    for other in (b"", b"[", b"null", b"[" * 100_000, b"\xff"):
        assert said(LARGE, response, other) == ("failed", "request_differs")


@pytest.mark.parametrize(
    "written",
    [
        partial(json.dumps, separators=(",", ":"), ensure_ascii=False),
        partial(json.dumps, separators=(",", ":")),
        partial(json.dumps, ensure_ascii=False),
        json.dumps,
    ],
)
def test_the_usual_spellings_are_found_again(written: Any) -> None:
    request = {**LARGE, "user": "é🙂"}
    response = signed(written(request).encode())
    assert said(request, response) == ("passed", None)
    assert said({**request, "seed": 2**60 + 1}, response) == ("skipped", "request_unknown")


def test_an_evidence_has_the_body() -> None:
    body = pretty(LARGE)
    response = signed(body)
    text = evidence_of(body, json.dumps(response).encode())
    assert json.loads(text) == {"request": LARGE, "response": response, "request_body": body.decode()}
    [check] = check_receipt(parse_evidence(text), [KEY.public])
    assert (check.status, check.reason) == ("passed", None)
    [check] = check_receipt(read_evidence({"request": LARGE, "response": response}), [KEY.public])
    assert (check.status, check.reason) == ("skipped", "request_unknown")
    [check] = check_receipt(parse_evidence(evidence_of(pretty(SWAPPED), json.dumps(response).encode())), [KEY.public])
    assert (check.status, check.reason) == ("failed", "request_differs")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (5, "expected a text"),
        (None, "expected a text"),
        ("{", "not the JSON of `request`"),
        (json.dumps(SWAPPED), "not the JSON of `request`"),
        (json.dumps({**LARGE, "stream": False}), "not the JSON of `request`"),
        (json.dumps({**LARGE, "seed": 2**60 + 1}), "not the JSON of `request`"),
        (json.dumps({**LARGE, "temperature": False}), "not the JSON of `request`"),
    ],
)
def test_a_body_that_says_something_else_is_malformed(body: Any, message: str) -> None:
    value = {"request": {**LARGE, "temperature": 0}, "response": GREEDY["response"], "request_body": body}
    whole = json.dumps({**LARGE, "temperature": 0.0})
    assert read_evidence({**value, "request_body": whole}).body == whole.encode()
    with pytest.raises(MalformedEvidence, match=message) as raised:
        read_evidence(value)
    assert raised.value.field == "request_body"


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        (json.dumps(GREEDY["request"]), False),
        (json.dumps({"seed": 2**53 - 1}), False),
        (json.dumps({"top_p": 0.12345678901234567}), False),
        (json.dumps({"seed": 2**53}), True),
        (json.dumps({"seed": -(2**53)}), True),
        ('{"metadata": {"a": "\\uD83D"}}', True),
        ('{"user": "\\ud83d\\ude42"}', False),
        ('{"a": NaN}', True),
        ('{"a": -Infinity}', True),
        ('{"a": 1e999}', True),
        ("{", False),
        (json.dumps(TOOLS["request"], separators=(",", ":")), False),
        (json.dumps(TOOLS["request"], indent=1), True),
        (json.dumps(GREEDY["request"], indent=1), False),
    ],
)
def test_which_requests_need_their_body(body: str, needed: bool) -> None:
    assert needs_body(body.encode()) == needed
    assert (b"request_body" in evidence_of(body.encode(), b"{}")) == needed


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_a_body_is_needed_where_there_is_no_digest(value: Any) -> None:
    body = json.dumps({"a": value}).encode()
    assert needs_body(body) == (request_digest(body) is None)


def test_bodies_that_are_no_text() -> None:
    """What is not UTF-8 cannot be carried: the evidence is as it would be without."""
    request = '{"seed": 1152921504606846976}'
    assert b"request_body" not in evidence_of(request.encode("utf-16"), b"{}")
    assert json.loads(evidence_of(request.encode("utf-16"), b"{}"))["request"] == {"seed": 2**60}


def reordered(request: Any) -> Any:
    """Keys the other way round, at every depth: of the same canonical form."""
    if isinstance(request, dict):
        return {name: reordered(value) for name, value in reversed(request.items())}
    return [reordered(item) for item in request] if isinstance(request, list) else request


PROMPT = Check(name="prompt", status="failed", choice=0, reason="prompt_digest", message="")


@pytest.mark.parametrize("exact", [True, False])
def test_a_request_that_may_have_been_bent_accuses_nobody(exact: bool) -> None:
    """A template writes a tool's parameters in their order: another order is another prompt."""
    request = TOOLS["request"]
    body = pretty(request)
    response = signed(body, TOOLS["response"], exact=exact)
    evidence = {"request": reordered(request), "response": response}

    def found(value: Any, *others: Check) -> tuple[str, str | None]:
        [check] = check_receipt(read_evidence(value), [KEY.public], others)
        return check.status, check.reason

    assert found(evidence) == ("passed", None)
    assert found(evidence, PROMPT) == ("skipped", "request_unknown")
    for other in ({"status": "passed", "reason": None}, {"choice": 1}, {"name": "proofs"}):
        assert found(evidence, PROMPT.model_copy(update=other)) == ("passed", None)
    kept = found({**evidence, "request_body": body.decode()}, PROMPT)
    assert kept == (("passed", None) if exact else ("skipped", "request_unknown"))


def test_whose_prompt_it_is_stands_where_the_bytes_are_known() -> None:
    """Or where nothing of the request can be bent."""
    sent = json.dumps(TOOLS["request"], separators=(",", ":")).encode()
    for request, response in (
        (TOOLS["request"], signed(sent, TOOLS["response"])),
        (reordered(GREEDY["request"]), signed(pretty(GREEDY["request"]))),
    ):
        [check] = check_receipt(read_evidence({"request": request, "response": response}), [KEY.public], [PROMPT])
        assert check.status == "passed"
