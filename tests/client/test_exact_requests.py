"""The request's exact bytes go where a receipt needs them: to the check here, to verifiers, into stored evidence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from recorded import RECORDED
from toploc_client.answer import Answer
from toploc_client.checker import Checker
from toploc_client.errors import RejectedResponse
from toploc_client.exchange import Exchange
from toploc_client.options import Options
from toploc_client.synchronous.finishing import finish

from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.receipts.request import body_sha256, request_digest
from toploc.receipts.statement import issue

if TYPE_CHECKING:
    from pathlib import Path

GREEDY = json.loads(RECORDED["greedy"])


class Response:
    pass


@pytest.mark.parametrize(("seed", "carried"), [(2**60, True), (7, False)])
def test_a_large_seed(tmp_path: Path, seed: int, carried: bool) -> None:
    """Written as no SDK does it."""
    key = SigningKey.create(tmp_path / "key.pem")
    request = {**GREEDY["request"], "seed": seed}
    body = json.dumps(request, indent=1).encode()
    response = GREEDY["response"]
    signed = issue(
        key,
        ToplocProofs.model_validate(response["toploc_proofs"]),
        response,
        request_sha256=request_digest(body),
        request_body_sha256=body_sha256(body),
        issued_at=1795500000,
    )
    answer = json.dumps({**response, "toploc_proofs": json.loads(signed.to_json())}).encode()
    given = Exchange.read(body, answer)
    assert json.loads(given.evidence).get("request_body") == (body.decode() if carried else None)
    stored = tmp_path / "evidence.jsonl"
    checker = Checker(Options(trusted_keys=[key.public], evidence=str(stored)))
    finish(checker, Answer(given, Response(), given.proofs))
    assert checker.counts.accepted == 1
    assert stored.read_bytes() == given.evidence.replace(b"\n", b" ") + b"\n"
    swapped: Any = {**request, "messages": [{"role": "user", "content": "Count from 1 to 50."}]}
    with pytest.raises(RejectedResponse, match="another request"):
        finish(checker, Answer(Exchange.read(json.dumps(swapped).encode(), answer), Response(), given.proofs))


def test_what_was_written_anew_is_not_the_bytes() -> None:
    written = Exchange.of({"seed": 2**60}, {})
    assert not written.exact
    assert json.loads(written.evidence) == {"request": {"seed": 2**60}, "response": {}}
