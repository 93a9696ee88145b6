"""What is wrong with evidence is said in the reader's words, not in the schema's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from toploc.errors import MalformedEvidence
from toploc.evidence import parse_evidence

EVIDENCE = json.loads((Path(__file__).parent / "greedy-short.json").read_text("utf-8"))

WRONG: list[tuple[list[str | int], Any, str]] = [
    (["request", "max_tokens"], "a", 'request.max_tokens: expected an integer, got "a"'),
    (["request", "messages"], 5, "request.messages: expected a list, got 5"),
    (["request", "messages"], [], "request.messages: expected a longer list, got []"),
    (["request", "stop"], 5, "request.stop: expected text, got 5"),
    (["response", "choices"], {}, "response.choices: expected a list, got {}"),
    (["response", "model"], None, "response.model: expected text, got null"),
    (["response", "toploc_proofs", "version"], 3, "response.toploc_proofs.version: expected 1, got 3"),
    (["response", "toploc_proofs", "extra"], 3, "response.toploc_proofs.extra: unknown field"),
    (
        ["response", "toploc_proofs", "choices", 0, "token_ids", 0],
        "a",
        'response.toploc_proofs.choices[0].token_ids[0]: expected an integer, got "a"',
    ),
    (
        ["response", "toploc_proofs", "choices", 0, "token_ids", 0],
        -1,
        "response.toploc_proofs.choices[0].token_ids[0]: expected 0 or more, got -1",
    ),
]


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_field_and_fix(path: list[str | int], value: Any, expected: str) -> None:
    evidence = copy.deepcopy(EVIDENCE)
    place = evidence
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(MalformedEvidence) as error:
        parse_evidence(json.dumps(evidence))
    assert str(error.value) == expected


def test_what_is_quoted_is_short() -> None:
    evidence = copy.deepcopy(EVIDENCE)
    evidence["response"]["model"] = ["x" * 100_000]
    with pytest.raises(MalformedEvidence) as error:
        parse_evidence(json.dumps(evidence))
    assert len(str(error.value)) < 200
