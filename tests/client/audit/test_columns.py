"""Rollouts in Parquet: which column is what, and what is said where one is missing or another."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from recorded import RECORDED
from toploc_client.audit.columns import Columns
from toploc_client.audit.readers import Rows

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path

PROOFS = json.loads(RECORDED["greedy"])["response"]["toploc_proofs"]
IDS = PROOFS["choices"][0]["token_ids"]
ROW: dict[str, Any] = {
    "prompt_token_ids": [1, 2, 3],
    "token_ids": IDS,
    "toploc_proofs": json.dumps(PROOFS),
    "sampling_params": '{"max_tokens": 99, "seed": 5}',
    "id": "row-7",
}


def table(path: Path, *rows: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def items(path: Path, columns: Columns) -> list[Any]:
    return [line.data and json.loads(line.data) for line in Rows(path, columns).lines()]


def without(name: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in {**ROW, **more}.items() if key != name}


def test_a_row_is_evidence(tmp_path: Path) -> None:
    [item] = items(table(tmp_path / "r.parquet", ROW), Columns())
    assert item == {
        "request": {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 99, "seed": 5, "n": 1}},
        "response": {
            "request_id": "row-7",
            "choices": [{"index": 0, "token_ids": IDS}],
            "toploc_proofs": PROOFS,
        },
        "partial": True,
    }


def test_columns_by_other_names_and_types(tmp_path: Path) -> None:
    """Structs, of which Arrow fills every field in every row; 32-bit ids; one set of options for all."""
    other = {**PROOFS, "choices": [{**PROOFS["choices"][0], "seed": 4}]}
    rows = [{"p": [1], "c": IDS, "proof": proofs, "why": "length", "n": 7} for proofs in (PROOFS, other)]
    columns = "prompt_token_ids=p, token_ids=c,proofs=proof,finish_reason=why,id=n"
    first, second = items(table(tmp_path / "r.parquet", *rows), Columns.parse(columns, '{"temperature": 0}'))
    assert first["response"]["toploc_proofs"] == PROOFS
    assert second["response"]["toploc_proofs"]["choices"][0]["seed"] == 4
    assert first["response"]["choices"][0]["finish_reason"] == "length"
    assert first["response"]["request_id"] == "7"
    assert first["request"]["sampling_params"] == {"temperature": 0, "n": 1}


def test_a_choice_of_several(tmp_path: Path) -> None:
    """`toploc_proofs` of a response with all its choices beside each, as they came."""
    both = {**PROOFS, "choices": [{**PROOFS["choices"][0], "index": place, "token_ids": [place]} for place in range(2)]}
    rows = [{**ROW, "toploc_proofs": json.dumps(both), "choice": place} for place in range(2)]
    found = items(table(tmp_path / "r.parquet", *rows), Columns())
    kept = [item["response"]["toploc_proofs"]["choices"] for item in found]
    assert [[(choice["index"], choice["token_ids"]) for choice in choices] for choices in kept] == [
        [(0, [0])],
        [(0, [1])],
    ]
    assert [item["request"]["sampling_params"]["seed"] for item in found] == [5, 6]


def test_a_row_keeps_its_receipt(tmp_path: Path) -> None:
    signed = {**PROOFS, "choices": [{**PROOFS["choices"][0], "receipt": {"statement": {}, "signature": "x"}}]}
    [item] = items(table(tmp_path / "r.parquet", {**ROW, "toploc_proofs": json.dumps(signed)}), Columns())
    assert item["response"]["toploc_proofs"] == signed


def test_rows_by_their_place(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(place)} for place in range(10)]
    reader = Rows(table(tmp_path / "r.parquet", *rows, row_group_size=4), Columns())
    assert [(line.number, line.offset) for line in reader.lines()] == [(place + 1, place) for place in range(10)]
    for place in (0, 3, 4, 9):
        line = next(reader.lines(place, place + 1))
        assert (line.number, line.offset) == (place + 1, place)
        assert json.loads(line.data or b"")["response"]["request_id"] == str(place)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (without("token_ids"), "has no column 'token_ids' with the token_ids of rollouts; it has prompt_token_ids, "),
        (without("toploc_proofs"), "give --columns proofs=COLUMN"),
        (without("sampling_params"), "--sampling-params '"),
        (
            {**ROW, "token_ids": "1 2"},
            "column 'token_ids', the token_ids of rollouts, holds text (JSON), expected lists",
        ),
        ({**ROW, "prompt_token_ids": [0.5]}, "holds list<element: double>, expected lists of integers"),
        ({**ROW, "toploc_proofs": 3}, "column 'toploc_proofs', the proofs of rollouts, holds integers, expected text"),
        ({**ROW, "toploc_proofs": ["a"]}, "expected text (JSON) or structs; give --columns proofs=COLUMN"),
    ],
)
def test_columns_that_are_none(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ToplocError, match=re.escape(said)):
        Rows(table(tmp_path / "r.parquet", row), Columns())


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ("proofs", None, "--columns: 'proofs': expected PART=COLUMN"),
        ("proof=x", None, "--columns: proof: no part of a rollout; known are prompt_token_ids"),
        ("id=x", None, "has no column 'x' with the id of rollouts"),
        ("", "3", "--sampling-params: expected a JSON object"),
    ],
)
def test_options_that_are_none(columns: str, options: str | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(ToplocError, match=re.escape(said)):
        Rows(table(tmp_path / "r.parquet", ROW), Columns.parse(columns, options))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("token_ids", None, "column 'token_ids' is empty"),
        ("toploc_proofs", "not JSON", "column 'toploc_proofs' has no JSON object"),
        ("sampling_params", "[1]", "column 'sampling_params' has no JSON object"),
    ],
)
def test_a_row_that_is_none(name: str, value: Any, said: str, tmp_path: Path) -> None:
    """Beside one that is: the others are done."""
    path = table(tmp_path / "r.parquet", ROW, {**ROW, name: value})
    first, second = Rows(path, Columns()).lines()
    assert first.data is not None
    assert (second.data, second.problem) == (None, said)
