"""Evidence in a file, from several threads and processes, over kills and full disks."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from toploc.errors import ToplocError
from toploc.evidence.file import EvidenceFile, read_lines
from toploc.evidence.parquet import from_parquet, to_parquet
from toploc.evidence.parse import parse_evidence
from toploc.evidence.strict_json import MAX_BYTES

RECORDED = sorted((Path(__file__).parents[1] / "evidence").glob("*.json"))


def pair(number: int, size: int = 10) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"number": number}, {"id": f"é{number}\n", "text": "x" * size}


def numbers(path: Path) -> list[int]:
    return [json.loads(line.data or b"")["request"]["number"] for line in read_lines(path)]


def test_what_is_stored_is_evidence(tmp_path: Path) -> None:
    file = EvidenceFile(tmp_path / "e.jsonl")
    for path in RECORDED:
        item = json.loads(path.read_text("utf-8"))
        file.append(item["request"], item["response"])
    lines = list(read_lines(file.path))
    assert [line.number for line in lines] == list(range(1, len(RECORDED) + 1))
    for line, path in zip(lines, RECORDED, strict=True):
        assert line.data is not None
        if path.stem != "no-proofs":
            assert parse_evidence(line.data) == parse_evidence(path.read_bytes())
        assert next(read_lines(file.path, line.offset, line.number)) == line
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def _write(path: Path, start: int) -> None:
    file = EvidenceFile(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: file.append(*pair(number, 20_000)), range(start, start + 50)))


def test_threads_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(path, 50 * place)) for place in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(numbers(path)) == list(range(200))


def test_a_torn_line_costs_no_other(tmp_path: Path) -> None:
    file = EvidenceFile(tmp_path / "e.jsonl")
    file.append(*pair(1))
    with file.path.open("ab") as torn:
        torn.write(b'{"request": {"number": 2}, "resp')
    assert [line.problem is None for line in read_lines(file.path)] == [True, False]
    file.append(*pair(3))
    lines = list(read_lines(file.path))
    assert [line.problem is None for line in lines] == [True, False, True]
    assert "torn" in str(lines[1].problem)
    assert json.loads(lines[2].data or b"")["request"] == {"number": 3}


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    file = EvidenceFile(tmp_path / "e.jsonl")
    file.append(*pair(1))
    before = file.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))
        with pytest.raises(ToplocError, match="not stored"):
            file.append(*pair(2, 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.path.read_bytes() == before
    file.append(*pair(3))
    assert numbers(file.path) == [1, 3]


def test_lines_beyond_the_limit_are_reported_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"{" + b" " * MAX_BYTES + b"}\n" + b'{"request": {"number": 1}}\n')
    assert [(line.number, line.problem is None) for line in read_lines(path)] == [(1, False), (2, True)]


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ToplocError, match="No such file"):
        list(read_lines(tmp_path / "none"))
    with pytest.raises(ToplocError, match="not stored"):
        EvidenceFile(tmp_path / "none" / "e.jsonl").append(*pair(1))


def test_parquet(tmp_path: Path) -> None:
    source, table = tmp_path / "e.jsonl", tmp_path / "e.parquet"
    source.write_bytes(b"".join(path.read_bytes().replace(b"\n", b" ") + b"\n" for path in RECORDED) + b'{"torn')
    assert to_parquet(source, table) == len(RECORDED)
    for data, path in zip(from_parquet(table), RECORDED, strict=True):
        assert json.loads(data) == json.loads(path.read_bytes())


def test_parquet_with_bodies(tmp_path: Path) -> None:
    """A body that is no text costs no other line, and is refused where the evidence is read."""
    source, table = tmp_path / "e.jsonl", tmp_path / "e.parquet"
    items = [{"request": {"a": 1}, "response": {}, **extra} for extra in ({}, {"request_body": '{"a":1}'})]
    items += [{**items[0], "request_body": body} for body in (5, None, {"a": "b"}, "half \ud83d")]
    source.write_text("".join(f"{json.dumps(item)}\n" for item in items))
    assert to_parquet(source, table) == len(items)
    assert [json.loads(data) for data in from_parquet(table)] == items


@pytest.mark.parametrize(
    "changed",
    [
        {"created": 10**30},
        {"created": -(10**30)},
        {"created": "soon"},
        {"created": True},
        {"id": 7},
        {"model": ["a"]},
        {"id": "half \ud83d"},
    ],
)
def test_one_answer_cannot_end_a_conversion(tmp_path: Path, changed: dict[str, Any]) -> None:
    source, table = tmp_path / "e.jsonl", tmp_path / "e.parquet"
    items = [json.loads(path.read_bytes()) for path in RECORDED[:3]]
    items[1]["response"] |= changed
    lines = [json.dumps(item) for item in items]
    source.write_text("\n".join([*lines, lines[0].replace('"created": ', '"created": 1e999, "was": ')]) + "\n")
    assert to_parquet(source, table) == 4
    assert len(list(from_parquet(table))) == 4
