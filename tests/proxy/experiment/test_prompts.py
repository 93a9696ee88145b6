"""Data sets from files, ours and the hub's, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from toploc_proxy.experiment.folder import file_name
from toploc_proxy.experiment.generate import length
from toploc_proxy.experiment.prompts import read_prompts

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path

ROWS: list[tuple[Any, list[dict[str, str]]]] = [
    ("hello", [{"role": "user", "content": "hello"}]),
    ({"prompt": "a"}, [{"role": "user", "content": "a"}]),
    ({"id": "1", "data": ["first", "answer", "second"]}, [{"role": "user", "content": "first"}]),
    (
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    ),
    ({"conversations": [{"from": "human", "value": "q"}]}, [{"role": "user", "content": "q"}]),
]


def test_rows_of_every_form(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row, _ in ROWS), "utf-8")
    assert read_prompts(str(path), len(ROWS)) == [expected for _, expected in ROWS]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row for row, _ in ROWS]), "utf-8")
    assert read_prompts(str(path), 3) == [expected for _, expected in ROWS[:3]]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist([{"question": f"q{i}"} for i in range(250)]), path)
    assert read_prompts(str(path), 250)[249] == [{"role": "user", "content": "q249"}]


def test_our_own() -> None:
    prompts = read_prompts("toploc-questions", 64)
    assert len({json.dumps(prompt) for prompt in prompts}) == 64


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{}\n{", "a.jsonl: row 1: expected one of messages"),
        ("a.jsonl", b'{"prompt": "x"}\n{', "a.jsonl: row 2: not JSON"),
        ("a.jsonl", b'{"prompt": " "}\n{"prompt": "x"}', "row 1: a message without text"),
        ("a.jsonl", b'{"prompt": "x"}', "has 1 prompts, --n_samples asks for 2"),
        ("a.json", b"{}", "a.json: expected a list of rows"),
        ("a.parquet", b"no", "a.parquet: no Parquet file"),
        ("a.csv", b"x", "expected a file that ends in .jsonl, .json, .parquet"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ToplocError, match=message):
        read_prompts(str(tmp_path / name), 2)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToplocError, match="No such file"):
        read_prompts(str(tmp_path / "none.jsonl"), 1)


@pytest.mark.skipif(find_spec("datasets") is not None, reason="datasets is installed, and would ask the hub")
def test_a_data_set_of_the_hub_needs_a_package() -> None:
    with pytest.raises(ToplocError, match=r"needs the package datasets: .* or give --dataset_name a file instead"):
        read_prompts("stingning/ultrachat", 4)


def test_lengths_have_short_last_chunks() -> None:
    lengths = [length(sample, 128) for sample in range(1000)]
    assert min(lengths) == 1
    assert max(lengths) <= 128
    rest = [n % 32 for n in lengths]
    assert all(rest.count(rows) > 100 for rows in (1,))
    assert all(sum(low <= rows <= high for rows in rest) > 80 for low, high in ((2, 3), (4, 7), (8, 31)))


@pytest.mark.parametrize("name", ["../x", "./x", "", "/"])
def test_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(ToplocError, match="expected the name of a model"):
        file_name(name)


def test_names_are_spelt_as_by_the_original() -> None:
    assert file_name("meta-llama/Llama-3.1-8B") == "meta-llama--Llama-3.1-8B"
