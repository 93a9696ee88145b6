"""Receipts: the vectors in docs, what survives an SDK, and that nothing that is signed can be changed."""

from __future__ import annotations

import copy
import json
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from toploc.checks.receipt import check_receipt
from toploc.errors import MalformedEvidence
from toploc.evidence.parse import read_evidence
from toploc.leaves import is_free
from toploc.protocol import ToplocProofs
from toploc.receipts.keys import PublicKey, SigningKey
from toploc.receipts.output import output_of, shown_in
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.request import digest, request_digest
from toploc.receipts.statement import canonical, issue
from toploc.report import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "docs" / "receipt-vectors.json").read_text("utf-8"))
KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["private_key"])))
OTHER = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
NAMES = ["greedy-short", "tool-call", "completion", "two-choices", "greedy-ids", "completion-many"]


def signed(name: str, fields: Sequence[str] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recorded request and response, with receipts as a server adds them."""
    evidence = json.loads((ROOT / "tests" / "toploc" / "evidence" / f"{name}.json").read_text("utf-8"))
    request, response = evidence["request"], evidence["response"]
    signed = issue(
        KEY,
        ToplocProofs.model_validate(response["toploc_proofs"]),
        response,
        request_sha256=request_digest(json.dumps(request).encode()),
        fields=fields,
        issued_at=VECTORS["issued_at"],
    )
    return request, {**response, "toploc_proofs": json.loads(signed.to_json())}


SIGNED = {name: signed(name) for name in NAMES}
BEFORE = {name: signed(name, ()) for name in NAMES}
"""As servers signed before 30 November 2026."""


def reasons(request: Any, response: Any, keys: Any = (KEY.public,)) -> list[str | None]:
    return [result.reason for result in verify_receipt(request, response, keys)]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['evidence']}-{case['choice']}")
def test_vectors(case: dict[str, Any]) -> None:
    """Of what servers signed before they signed leaves."""
    request, response = BEFORE[case["evidence"]]
    receipt = ToplocProofs.model_validate(response["toploc_proofs"]).choices[case["choice"]].receipt
    assert canonical(receipt.statement).decode() == case["statement"]
    assert receipt.signature == case["signature"]
    assert digest(json.loads(case["request"])) == receipt.statement.request_sha256 == digest(request)
    output = output_of(shown_in(response, case["choice"]))
    assert output == json.loads(case["output"])
    assert digest(output) == receipt.statement.output_sha256
    assert PublicKey.model_validate(VECTORS["public_key"]) == KEY.public


@pytest.mark.parametrize("case", VECTORS["bodies"], ids=lambda case: case["evidence"])
def test_vectors_with_bodies(case: dict[str, Any]) -> None:
    path = ROOT / "tests" / "toploc" / "evidence" / f"{case['evidence']}.json"
    response, body = json.loads(path.read_text("utf-8"))["response"], case["request_body"].encode()
    made = issue(
        KEY,
        ToplocProofs.model_validate(response["toploc_proofs"]),
        response,
        request_sha256=request_digest(body),
        request_body_sha256=sha256(body).hexdigest(),
        fields=(),
        issued_at=VECTORS["issued_at"],
    )
    receipt = made.choices[case["choice"]].receipt
    assert canonical(receipt.statement).decode() == case["statement"]
    assert receipt.signature == case["signature"]
    assert output_of(shown_in(response, case["choice"])) == json.loads(case["output"])
    response = {**response, "toploc_proofs": json.loads(made.to_json())}
    [result] = verify_receipt(json.loads(body), response, [KEY.public], body)
    assert (result.status, result.request) == ("passed", "exact")


@pytest.mark.parametrize("case", VECTORS["leaves"], ids=lambda case: f"{Path(case['evidence']).name}-{case['choice']}")
def test_vectors_with_leaves(case: dict[str, Any]) -> None:
    """Of JSON replies, and of a stream, whose `usage` comes after its receipt."""
    path = ROOT / "tests" / "toploc" / "evidence" / f"{case['evidence']}.json"
    evidence = json.loads(path.read_text("utf-8"))
    stated = json.loads(case["statement"])
    made = issue(
        KEY,
        ToplocProofs.model_validate(evidence["response"]["toploc_proofs"]),
        evidence["response"],
        request_sha256=digest(evidence["request"]),
        fields=stated.get("leaves_of"),
        issued_at=VECTORS["issued_at"],
    )
    receipt = made.choices[case["choice"]].receipt
    assert canonical(receipt.statement).decode() == case["statement"]
    assert receipt.signature == case["signature"]
    assert sha256(case["leaves"].encode()).hexdigest() == receipt.statement.leaves_sha256
    assert ("leaves_of" in stated) == evidence["request"].get("stream", False)


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_passes(name: str) -> None:
    request, response = SIGNED[name]
    assert reasons(request, response) == [None] * len(response["choices"])


def test_what_the_sdk_does_to_a_response_changes_nothing() -> None:
    for name in ("greedy-short", "tool-call", "two-choices"):
        request, response = SIGNED[name]
        dumped = ChatCompletion.model_validate(response).model_dump()
        assert dumped != response
        respelled = {**request, "temperature": float(request.get("temperature", 0))}
        assert set(reasons(respelled if "temperature" in request else request, dumped)) == {None}
        assert set(reasons(request, json.loads(json.dumps(dumped)))) == {None}


def test_choices_that_came_in_events_of_their_own() -> None:
    """A stream's event has one choice; put together they are as if they had come at once."""
    request, response = SIGNED["two-choices"]
    for choice in response["toploc_proofs"]["choices"]:
        event = {**response, "toploc_proofs": {**response["toploc_proofs"], "choices": [choice]}}
        assert reasons(request, event) == [None]


Path_ = tuple[str | int, ...]
STATED = {"id", "created", "model"}
"""Free leaves whose change a receipt has to show, besides all of `toploc_proofs` and all leaves that are not free."""


def leaves(value: Any, at: Path_ = ()) -> list[Path_]:
    if isinstance(value, dict):
        return [path for key in value for path in leaves(value[key], (*at, key))]
    if isinstance(value, list):
        return [path for i, item in enumerate(value) for path in leaves(item, (*at, i))]
    return [at]


def signed_leaves(request: Any, response: Any) -> list[Path_]:
    return [("request", *path) for path in leaves(request)] + [
        ("response", *path)
        for path in leaves(response)
        if path[0] == "toploc_proofs" or path[-1] in STATED or not is_free(path, "")
    ]


@st.composite
def changes(draw: st.DrawFn) -> tuple[Any, Any, Path_]:
    """A recorded answer with one value changed, by one bit where it is a text."""
    request, response = SIGNED[draw(st.sampled_from(NAMES))]
    document = copy.deepcopy({"request": request, "response": response})
    path = draw(st.sampled_from(signed_leaves(request, response)))
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    value = place[path[-1]]
    changed: Any = draw(st.one_of(st.integers(-1, 2**53), st.text(max_size=3), st.none(), st.booleans()))
    if isinstance(value, str) and value and draw(st.booleans()):
        data = bytearray(value.encode())
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 6))
        changed = data.decode(errors="replace")
    elif isinstance(value, int):
        changed = value + draw(st.sampled_from([-1, 1, 32]))
    assume(type(changed) is not type(value) or changed != value)
    assume((changed or None) != (value or None))  # null, absent and empty are one
    place[path[-1]] = changed
    return document["request"], document["response"], path


@settings(deadline=None)
@given(changes())
def test_any_change_breaks_it(change: tuple[Any, Any, Path_]) -> None:
    request, response, path = change
    try:
        results = verify_receipt(request, response, [KEY.public])
    except MalformedEvidence:
        assert "toploc_proofs" in path
        return
    assert any(result.status != "passed" for result in results), path


@settings(deadline=None)
@given(st.data())
def test_fields_cannot_be_added_or_taken(data: st.DataObject) -> None:
    request, response = copy.deepcopy(SIGNED["greedy-short"])
    if data.draw(st.booleans()):
        del request[data.draw(st.sampled_from(sorted(request)))]
    else:
        request[data.draw(st.text(max_size=2))] = data.draw(st.none() | st.booleans() | st.integers(0, 9))
    assert reasons(request, response) == ["request_differs"]


def edited(**statement: Any) -> tuple[Any, Any]:
    request, response = copy.deepcopy(SIGNED["greedy-short"])
    response["toploc_proofs"]["choices"][0]["receipt"]["statement"].update(statement)
    return request, response


def test_what_each_reason_says() -> None:
    request, response = SIGNED["greedy-short"]
    assert reasons(request, response, ()) == ["no_trusted_keys"]
    assert reasons({**request, "seed": 1}, response, ()) == ["request_differs"]
    assert reasons(request, response, [OTHER.public]) == ["unknown_key"]
    assert reasons(*edited(issued_at=5)) == ["signature"]
    assert reasons(*edited(key_id=OTHER.public.key_id), [KEY.public, OTHER.public]) == ["signature"]
    assert reasons({**request, "seed": 1}, response) == ["request_differs"]
    assert reasons(request, {**response, "id": "chatcmpl-0"}) == ["response_differs"]
    assert reasons(request, {**response, "model": "another"}) == ["response_differs"]
    before = KEY.public.model_copy(update={"not_after": _time(VECTORS["issued_at"] - 1)})
    at = KEY.public.model_copy(update={"not_after": _time(VECTORS["issued_at"])})
    assert reasons(request, response, [before]) == ["key_expired"]
    assert reasons(request, response, [at]) == [None]


def _time(seconds: int) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)


def test_the_check_of_a_report() -> None:
    request, response = SIGNED["two-choices"]
    evidence = read_evidence({"request": request, "response": response})
    [first, second] = check_receipt(evidence, [KEY.public])
    assert (first.name, first.status, first.choice, second.choice) == ("receipt", "passed", 0, 1)
    assert first.figures == {"key_id": KEY.public.key_id, "issued_at": VECTORS["issued_at"]}
    assert first.thresholds == {"key_ids": [KEY.public.key_id]}
    assert [(c.status, c.reason) for c in check_receipt(evidence, [])] == [("skipped", "no_trusted_keys")] * 2
    assert [(c.status, c.reason) for c in check_receipt(evidence, [OTHER.public])] == [("failed", "unknown_key")] * 2


def test_what_other_routes_show() -> None:
    thought, call = (
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "type": "function_call",
            "call_id": "x",
            "name": "add",
            "arguments": '{"a": 1}',
        },
    )
    said = {"type": "message", "content": [{"type": "output_text", "text": "4"}, {"type": "output_text", "text": "2"}]}
    response = {"object": "response", "status": "completed", "output": [thought, call, said]}
    called = [{"id": "x", "name": "add", "arguments": '{"a": 1}'}]
    assert output_of(shown_in(response, 3)) == {"text": "42", "reasoning": "Hm.", "tool_calls": called}
    assert shown_in(response, 0)["finish_reason"] == "completed"
    cut = {**response, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert shown_in(cut, 0)["finish_reason"] == "max_output_tokens"
    blocks = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "42"},
        {"type": "tool_use", "id": "x", "name": "add", "input": {"a": 1}},
    ]
    message = {"type": "message", "content": blocks, "stop_reason": "tool_use"}
    used = [{"id": "x", "name": "add", "arguments": {"a": 1}}]
    assert output_of(shown_in(message, 0)) == {"text": "42", "reasoning": "Hm.", "tool_calls": used}
    assert shown_in(message, 0)["finish_reason"] == "tool_use"


def test_answers_without_a_receipt() -> None:
    for name in ("greedy", "no-proofs", "no-output"):
        evidence = json.loads((ROOT / "tests" / "toploc" / "evidence" / f"{name}.json").read_text("utf-8"))
        assert reasons(evidence["request"], evidence["response"]) == ["no_receipt"]


def test_a_receipt_of_another_choice_is_none() -> None:
    request, response = copy.deepcopy(SIGNED["two-choices"])
    first, second = response["toploc_proofs"]["choices"]
    first["receipt"], second["receipt"] = second["receipt"], first["receipt"]
    assert reasons(request, response) == ["response_differs", "response_differs"]


def row() -> tuple[dict[str, Any], dict[str, Any]]:
    """The second choice as a table of rollouts keeps it: by itself, with what it was asked for written anew."""
    _, response = copy.deepcopy(SIGNED["two-choices"])
    field = response["toploc_proofs"]
    choice = {**field["choices"][1], "index": 0}
    kept = {"request_id": "row-7", "choices": [{"index": 0, "token_ids": choice["token_ids"]}]}
    request = {"token_ids": [1, 2, 3], "sampling_params": {"temperature": 1.0, "n": 1}}
    return request, {**kept, "toploc_proofs": {**field, "choices": [choice]}}


def test_a_choice_that_was_kept_by_itself() -> None:
    request, response = row()
    [result] = verify_receipt(request, response, [KEY.public], partial=True)
    assert (result.status, result.request) == ("passed", "prompt")
    assert "the prompt's tokens alone" in result.message
    assert reasons(request, response) == ["request_differs"]
    assert [r.reason for r in verify_receipt(request, response, [OTHER.public], partial=True)] == ["unknown_key"]


def other_ids(response: dict[str, Any]) -> None:
    """Which the row itself says, too."""
    for holder in (response["choices"][0], response["toploc_proofs"]["choices"][0]):
        holder["token_ids"] = [*holder["token_ids"][:-1], 9]


CHANGES: dict[str, Any] = {
    "tokens_differ": other_ids,
    "proofs_differ": lambda response: response["toploc_proofs"]["choices"][0]["proofs"].reverse(),
    "prompt_differs": lambda response: response["toploc_proofs"]["prompt"].update(sha256="0" * 64),
    "response_differs": lambda response: response["choices"][0].update(finish_reason="abort"),
    "signature": lambda response: response["toploc_proofs"]["choices"][0]["receipt"]["statement"].update(issued_at=1),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_a_choice_that_was_kept_and_changed(reason: str) -> None:
    request, response = row()
    CHANGES[reason](response)
    assert [r.reason for r in verify_receipt(request, response, [KEY.public], partial=True)] == [reason]


@pytest.mark.parametrize(
    ("failed", "status"),
    [("proofs", "passed"), ("tokens", "skipped"), ("prompt", "skipped"), ("response", "skipped"), ("model", "skipped")],
)
def test_what_the_request_that_was_written_anew_may_be_to_blame_for(failed: Any, status: str) -> None:
    """Else whoever keeps rows could accuse a provider by other options than those that it was asked for with."""
    request, response = row()
    evidence = read_evidence({"request": request, "response": response, "partial": True})
    others = [Check(name=failed, status="failed", message="")]
    [check] = check_receipt(evidence, [KEY.public], others)
    assert (check.status, check.reason) == (status, None if status == "passed" else "request_unknown")
    assert [one.status for one in check_receipt(evidence, [KEY.public])] == ["passed"]


def test_a_receipt_taken_from_one_choice_leaves_the_other() -> None:
    request, response = copy.deepcopy(SIGNED["two-choices"])
    del response["toploc_proofs"]["choices"][1]["receipt"]
    assert reasons(request, response) == [None, "no_receipt"]


def test_requests_without_a_canonical_form() -> None:
    """Signed all the same, and for no request that can be told: docs/receipts.md. A provider that leaves out the
    digest of one that has a canonical form is found."""
    for body in (b'{"seed": 9007199254740993}', b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"\\ud800": 1}', b"{"):
        assert request_digest(body) is None
    assert request_digest(b"[" * 5000 + b"]" * 5000) is None
    _, response = SIGNED["greedy-short"]
    signed = issue(
        KEY,
        ToplocProofs.model_validate(response["toploc_proofs"]),
        response,
        request_sha256=None,
        issued_at=1,
    )
    response = {**response, "toploc_proofs": json.loads(signed.to_json())}
    assert "request_sha256" not in response["toploc_proofs"]["choices"][0]["receipt"]["statement"]
    assert reasons({"seed": 2**53 + 1}, response) == ["request_unknown"]
    assert reasons({"seed": 1}, response) == ["request_differs"]


def test_spellings_of_one_request() -> None:
    spelled = (
        b'{"a": 1.0, "b": [1e2, "\\u00e9"]}',
        '{ "b":[100,"é"],"a":1}'.encode(),
        '{"a":1,"b":[100,"é"]}'.encode("utf-16"),
    )
    assert len({request_digest(body) for body in spelled}) == 1
    assert request_digest(b'{"a": 0, "a": 1}') == request_digest(b'{"a": 1}')


@pytest.mark.parametrize("receipt", [None, {}, [], "x", {"statement": {}, "signature": ""}])
def test_malformed_receipts(receipt: Any) -> None:
    request, response = copy.deepcopy(SIGNED["greedy-short"])
    response["toploc_proofs"]["choices"][0]["receipt"] = receipt
    if receipt is None:
        assert reasons(request, response) == ["no_receipt"]
        return
    with pytest.raises(MalformedEvidence):
        verify_receipt(request, response, [KEY.public])


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=3))
def test_hostile_responses_raise_nothing_else(value: Any) -> None:
    request, response = SIGNED["greedy-short"]
    for field in ("id", "created", "choices", "model"):
        verify_receipt(request, {**response, field: value}, [KEY.public])
    for field in ("message", "text", "index", "finish_reason"):
        verify_receipt(request, {**response, "choices": [{"index": 0, field: value}]}, [KEY.public])
    for field in ("output", "status", "incomplete_details", "content", "stop_reason"):
        verify_receipt(request, {**response, "object": "response", field: value}, [KEY.public])
        verify_receipt(request, {**response, "type": "message", field: value}, [KEY.public])
    for field in ("content", "tool_calls", "function_call", "reasoning"):
        message = {"content": "", field: value}
        verify_receipt(request, {**response, "choices": [{"index": 0, "message": message}]}, [KEY.public])


def test_signatures_are_not_malleable() -> None:
    """Other base64 of the same bytes, and S + L in place of S, are no signatures."""
    _, response = SIGNED["greedy-short"]
    receipt = response["toploc_proofs"]["choices"][0]["receipt"]
    raw = b64decode(receipt["signature"])
    order = 2**252 + 27742317777372353535851937790883648493
    larger = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    message = canonical(ToplocProofs.model_validate(response["toploc_proofs"]).choices[0].receipt.statement)
    assert KEY.public.verifies(receipt["signature"], message)
    assert not KEY.public.verifies(b64encode(larger).decode(), message)
    with pytest.raises(ValidationError):
        type(ToplocProofs.model_validate(response["toploc_proofs"]).choices[0].receipt).model_validate(
            {**receipt, "signature": receipt["signature"] + "\n"}
        )


def test_media_are_signed_with_their_prompt() -> None:
    evidence = json.loads((ROOT / "tests" / "toploc" / "evidence" / "greedy-short.json").read_text("utf-8"))
    request, response = evidence["request"], evidence["response"]
    media = [{"modality": "image", "offset": 2, "length": 4, "sha256": "0" * 64}]
    response["toploc_proofs"]["prompt"]["media"] = media
    proofs = ToplocProofs.model_validate(response["toploc_proofs"])
    asked = request_digest(json.dumps(request).encode())
    field = issue(KEY, proofs, response, request_sha256=asked, issued_at=1)
    response["toploc_proofs"] = json.loads(field.to_json())
    statement = response["toploc_proofs"]["choices"][0]["receipt"]["statement"]
    assert statement["media_sha256"] == digest(media)
    assert reasons(request, response) == [None]
    for changed in ([{**media[0], "sha256": "1" * 64}], [*media, media[0]], None):
        response["toploc_proofs"]["prompt"] |= {"media": changed}
        assert reasons(request, response) == ["prompt_differs"]
