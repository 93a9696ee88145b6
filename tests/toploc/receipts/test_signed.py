"""A receipt covers every leaf of a response that a verifier would hold against its tokens: of all recorded answers."""

from __future__ import annotations

import copy
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mutations import changed, leaves, mutations
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from toploc.checks.receipt import check_receipt
from toploc.evidence.assembly import LAST
from toploc.evidence.parse import read_evidence
from toploc.leaves import is_free
from toploc.protocol import FIELD_NAME, ToplocProofs
from toploc.receipts.keys import SigningKey, parse_keys
from toploc.receipts.output import route_of
from toploc.receipts.receipt import ReceiptResult, verify_receipt
from toploc.receipts.request import digest
from toploc.receipts.signed import fields_in, leaves_sha256
from toploc.receipts.statement import issue
from toploc.report import Report

EVIDENCE = Path(__file__).parents[1] / "evidence"
REJECTED = Path(__file__).parents[1] / "rejected_receipts"
RECORDED = {path.stem: path for path in sorted(EVIDENCE.glob("**/*.json"))}
KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
MODELS: dict[str, Any] = {"chat": ChatCompletion, "completion": Completion, "response": Response}


def recorded(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    evidence = json.loads(RECORDED[name].read_bytes())
    return evidence["request"], evidence["response"]


def signed(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As a server signs: of a stream of choices, what is known when they end."""
    request, response = recorded(name)
    known = None
    if request.get("stream") and "choices" in response:
        known = [field for field in fields_in(response, 0) if field not in LAST]
    proofs = ToplocProofs.model_validate(response[FIELD_NAME])
    made = issue(KEY, proofs, response, request_sha256=digest(request), fields=known, issued_at=1795500000)
    return request, {**response, FIELD_NAME: json.loads(made.to_json())}


def results(request: Any, response: Any, **options: Any) -> tuple[ReceiptResult, ...]:
    return verify_receipt(request, response, [KEY.public], **options)


def reasons(request: Any, response: Any, **options: Any) -> set[str | None]:
    return {result.reason for result in results(request, response, **options)}


def indices(response: Any) -> list[int]:
    return [choice["index"] for choice in response.get("choices", [{"index": 0}])]


@pytest.mark.parametrize("name", RECORDED)
def test_no_leaf_that_is_not_free_can_be_touched(name: str) -> None:
    _, response = recorded(name)
    response.pop(FIELD_NAME, None)
    text, every = json.dumps(response), indices(response)
    before = [leaves_sha256(response, index) for index in every]
    assert None not in before
    free = {path for path, value in leaves(response) if is_free(path, value)}
    for path, how in mutations(response):
        same = [leaves_sha256(changed(text, path, how), index) for index in every] == before
        # Choices go by their numbers, and it is no receipt's matter in which order they stand.
        is_order = how == "reversed" and path == ("choices",)
        assert same == (is_order or (path in free and how in ("changed", "removed"))), (path, how)


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in ("no-proofs", "no-output")])
def test_receipts_of_every_route(name: str) -> None:
    request, response = signed(name)
    passed = results(request, response)
    assert {result.status for result in passed} == {"passed"}
    is_late = bool(request.get("stream")) and "choices" in response and bool(response.get("usage"))
    assert {result.uncovered for result in passed} == {("usage",) if is_late else ()}
    assert reasons(request, {**response, "also": 5}) == ({None} if passed[0].statement.leaves_of else {"leaves_differ"})
    inside = copy.deepcopy(response)
    parts = inside.get("choices") or inside.get("output") or inside["content"]
    parts[0]["also"] = "anything"
    assert "leaves_differ" in reasons(request, inside)
    assert reasons(request, inside, partial=True) == {None}
    assert {r.uncovered for r in results(request, inside, partial=True)} == {("leaves",)}


@pytest.mark.parametrize("name", [name for name in RECORDED if route_of(recorded(name)[1]) in MODELS])
def test_what_an_sdk_makes_of_a_reply_has_the_same_leaves(name: str) -> None:
    """It adds nulls, and floats in place of integers."""
    _, response = recorded(name)
    made = MODELS[route_of(response)].construct(**response)  # as the SDK reads replies: it checks nothing
    for dumped in (made.model_dump(mode="json", by_alias=True), json.loads(made.model_dump_json(by_alias=True))):
        for index in indices(response):
            assert leaves_sha256(dumped, index) == leaves_sha256(response, index)


@pytest.mark.parametrize("path", sorted(REJECTED.glob("*.json")), ids=lambda path: path.stem)
def test_rejected_receipts(path: Path) -> None:
    """One fixture for each reason, and for each way to differ from what was signed, named after it."""
    document = json.loads(path.read_bytes())
    keys = parse_keys(document["keys"])
    request, response = document["request"], document["response"]
    assert verify_receipt(request, response, keys)[0].reason == path.stem.partition("-")[0]
    assert check_receipt(read_evidence({"request": request, "response": response}), keys)[0].status == "failed"


def test_a_report_says_what_is_not_covered() -> None:
    for name, fields, said in (
        ("greedy", None, "checked: receipt"),
        ("greedy", (), "checked: receipt (but not of leaves)"),
        ("greedy", ("choices",), "checked: receipt (but not of object, usage)"),
    ):
        request, response = recorded(name)
        proofs = ToplocProofs.model_validate(response[FIELD_NAME])
        made = issue(KEY, proofs, response, request_sha256=digest(request), fields=fields, issued_at=1)
        response[FIELD_NAME] = json.loads(made.to_json())
        checks = check_receipt(read_evidence({"request": request, "response": response}), [KEY.public])
        assert Report.of(checks).coverage == said


def test_a_partial_response_is_not_held_against_its_leaves() -> None:
    request, response = signed("stop-string")
    kept = copy.deepcopy(response)
    del kept["choices"][0]["stop_reason"], kept["usage"]
    whole, partial = ({"request": request, "response": kept, "partial": partial} for partial in (False, True))
    assert [check.reason for check in check_receipt(read_evidence(whole), [KEY.public])] == ["leaves_differ"]
    [check] = check_receipt(read_evidence(partial), [KEY.public])
    assert (check.status, check.figures["uncovered"]) == ("passed", ["leaves"])


def test_the_leaves_are_those_of_the_document() -> None:
    """Written by hand, as docs/receipts.md defines it."""
    response = {
        "id": "free",
        "model": "free",
        "usage": {"prompt_tokens_details": {"cached_tokens": 7}, "total_tokens": 1.0},
        "choices": [
            {"index": 1, "message": {"content": "another"}},
            {
                "index": 0,
                "message": {"content": 'é"\n', "refusal": None, "tool_calls": []},
                "é": {},
                "z": [None, [], 2],
            },
        ],
        "x": -1.1920928955078125e-07,
        FIELD_NAME: {"version": 1},
    }
    lines = [
        '[["choices",0,"index"],0]',
        '[["choices",0,"message","content"],"é\\"\\n"]',
        '[["choices",0,"z",0],null]',
        '[["choices",0,"z",1],null]',
        '[["choices",0,"z",2],2]',
        '[["choices",0,"é"],{}]',
        '[["usage","total_tokens"],1]',
        '[["x"],-1.1920928955078125e-7]',
    ]
    assert rfc8785.dumps([json.loads(line) for line in lines]).decode() == f"[{','.join(lines)}]"
    assert leaves_sha256(response, 0) == sha256(f"[{','.join(lines)}]".encode()).hexdigest()
    assert fields_in(response, 0) == ["choices", "usage", "x"]
    assert leaves_sha256(response, 0, ["x"]) == sha256(f"[{lines[-1]}]".encode()).hexdigest()


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), "\ud83d"])
def test_leaves_without_a_canonical_form_are_not_signed(value: Any) -> None:
    request, response = recorded("greedy")
    response["choices"][0]["also"] = value
    proofs = ToplocProofs.model_validate(response[FIELD_NAME])
    made = issue(KEY, proofs, response, request_sha256=digest(request), issued_at=1)
    assert made.choices is not None
    assert made.choices[0].receipt is not None
    assert made.choices[0].receipt.statement.leaves_sha256 is None
    [result] = results(request, {**response, FIELD_NAME: json.loads(made.to_json())})
    assert (result.reason, result.uncovered) == (None, ("leaves",))


def test_long_texts_are_nowhere_free() -> None:
    _, response = recorded("greedy")
    assert leaves_sha256({**response, "id": "x" * 256}, 0) == leaves_sha256(response, 0)
    assert leaves_sha256({**response, "id": "x" * 257}, 0) != leaves_sha256(response, 0)
