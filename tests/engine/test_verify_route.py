"""`POST /v1/toploc/verify` on the running engine: the bundled model's recorded answers, and what the route refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toploc.thresholds import Thresholds
from toploc.transformers_verifier import TransformersVerifier

if TYPE_CHECKING:
    import httpx

    from toploc.prefill import TransformersPrefill

EVIDENCE = Path(__file__).parents[1] / "toploc" / "evidence"
PATH = "/v1/toploc/verify"


def evidence(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVIDENCE / f"{name}.json").read_text("utf-8"))
    return found


def names() -> list[str]:
    return sorted(path.stem for path in EVIDENCE.glob("*.json"))


@pytest.fixture(scope="module")
def http(api: Any) -> httpx.Client:
    client: httpx.Client = api.http
    return client


@pytest.fixture(scope="module")
def reference(prefill: TransformersPrefill) -> TransformersVerifier:
    return TransformersVerifier(
        prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"), context_length=2048
    )


def test_both_backends_come_to_the_same_verdicts(http: httpx.Client, reference: TransformersVerifier) -> None:
    items = {name: evidence(name) for name in names() if name != "no-proofs"}
    response = http.post(PATH, json={"items": list(items.values())})
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(len(items)))
    reports = {list(items)[line["index"]]: line["report"] for line in lines}
    for name, item in items.items():
        expected = reference.verify(json.dumps(item)).model_dump()
        found = reports[name]
        assert found["verdict"] == expected["verdict"], (name, found)
        outcome = [(check["name"], check["choice"], check["status"], check["reason"]) for check in found["checks"]]
        assert outcome == [(c["name"], c["choice"], c["status"], c["reason"]) for c in expected["checks"]], name
    assert {name for name in reports if reports[name]["verdict"] == "rejected"} == {
        "int4-greedy",
        "int4-sampled",
        "other-system",
    }
