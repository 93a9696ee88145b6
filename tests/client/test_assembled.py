"""Client and signing server put a stream's events together to the same leaves, so that receipts of streams pass."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
from lying_provider import EVIDENCE, events_of, path_of, sse
from toploc_client.assembler import Assembler
from toploc_client.routes import Sent, kind_of

from toploc.evidence.assembly import Assembly
from toploc.protocol import FIELD_NAME
from toploc.receipts.signed import leaves_sha256

if TYPE_CHECKING:
    from pathlib import Path

RECORDED = [p for p in sorted(EVIDENCE.rglob("*.json")) if p.parent.name != "tokens" and p.stem != "no-proofs"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_both_put_the_same_together(path: Path) -> None:
    evidence = json.loads(path.read_bytes())
    route = f"/v1{path_of(evidence)}"
    client, server = (
        Assembler(Sent(kind_of("POST", route), json.dumps(evidence["request"]).encode(), route)),
        Assembly(),
    )
    for event in events_of(evidence["response"]):
        client.add(sse(event).decode().partition("data: ")[2].strip())
        plain = copy.deepcopy(event)
        plain.pop(FIELD_NAME, None)
        server.add(plain)
    ours, theirs = client.response(), server.response()
    assert client.problems == []
    assert ours is not None
    assert theirs is not None
    for choice in ours.get("choices", [{"index": 0}]):
        made = leaves_sha256(ours, choice["index"])
        assert made is not None
        assert made == leaves_sha256(theirs, choice["index"])
