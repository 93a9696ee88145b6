"""Answers that were given before, and what is remembered of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lying_provider import LyingProvider, recorded
from toploc_client import RejectedResponse, UndecidedResponse
from toploc_client.exchange import Exchange
from toploc_client.replays import CLOCKS, Replays, Seen

from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.receipts.statement import issue

from test_lies import ACCEPTED, chat  # isort: skip


def exchange(request: dict[str, Any] | None = None, **changes: Any) -> Exchange:
    greedy = recorded("greedy")
    response = {**greedy["response"], **changes}
    return Exchange(json.dumps(request or greedy["request"]).encode(), json.dumps(response).encode())


def found(replays: Replays, given: Exchange, sent_at: float | None = None) -> list[tuple[str, str | None]]:
    return [(check.status, check.reason) for check in replays.checks(given, given.proofs, sent_at)]


def test_an_id_that_was_seen_before() -> None:
    replays = Replays()
    assert found(replays, exchange()) == []
    assert found(replays, exchange(id="b")) == [("weak", "same_proofs")]
    assert ("undecided", "replayed") in found(replays, exchange())
    assert ("failed", "replayed") in found(replays, exchange({"another": "request"}))


def test_proofs_that_were_given_for_another_prompt() -> None:
    replays = Replays()
    assert found(replays, exchange()) == []
    field = recorded("greedy")["response"]["toploc_proofs"]
    other = {**field, "prompt": {**field["prompt"], "sha256": "0" * 64}}
    assert found(replays, exchange(id="b", toploc_proofs=other)) == [("failed", "replayed")]


def test_a_receipt_that_is_older_than_the_request(tmp_path: Any) -> None:
    greedy = recorded("greedy")
    key = SigningKey.create(tmp_path / "key.pem")
    proofs = ToplocProofs.model_validate(greedy["response"]["toploc_proofs"])
    signed = issue(key, proofs, greedy["response"], request_sha256=None, issued_at=1_000_000)
    given = exchange(toploc_proofs=signed.model_dump(mode="json", exclude_none=True))
    assert found(Replays(), given, sent_at=1_000_000 + CLOCKS - 1) == []
    assert found(Replays(), given, sent_at=1_000_000 + CLOCKS + 1) == [("undecided", "issued_before_request")]
    assert found(Replays(), given) == []


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen(3)
    for number in range(10):
        assert seen.before(b"%d" % number, b"x") is None
    assert [seen.before(b"%d" % number, b"y") for number in (0, 9)] == [None, b"x"]


def test_a_client_is_told() -> None:
    """Even where none of the answers is drawn."""
    provider = LyingProvider("greedy")
    client = provider.client(verifier=lambda _: ACCEPTED, audit_rate=0.0)
    chat(client, provider)
    with pytest.raises(UndecidedResponse, match="a replay, or a cache"):
        chat(client, provider)
    with pytest.raises(RejectedResponse, match="another request"):
        chat(client, provider, user="somebody else")
