"""`toploc audit` of a folder: files that are there, files that come, and what is left when it is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet
from recorded import file_of
from toploc_client.audit.command import main
from toploc_proxy.local_server import free_port

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Server

ANSWERS = ["greedy-short", "int4-greedy", "no-proofs"]
VERDICTS = ["accepted", "rejected", "undecided"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rollouts"
    made.mkdir()
    return made


def put(folder: Path, name: str, *answers: str) -> None:
    """As a trainer does: under another name until it is whole."""
    file_of(folder / f"{name}.part", *answers).rename(folder / name)


def verdicts(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Following:
    """The command, running."""

    def __init__(self, folder: Path, server: Server, out: Path, *options: str) -> None:
        call = [str(folder), "--follow", "--verifier", server.url, "--out", str(out), "--in-flight", "2", *options]
        command = [sys.executable, "-m", "toploc", "audit", *call]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def stop(self, number: int) -> tuple[int, str]:
        """The exit status and what it said."""
        self.process.send_signal(number)
        printed, said = self.process.communicate(timeout=60)
        return self.process.returncode, printed + said


@pytest.fixture
def follow(folder: Path, server: Server, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    begun: list[Following] = []

    def begin(*options: str) -> Following:
        begun.append(Following(folder, server, tmp_path / "out", *options))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("kind", [None, "parquet", "jsonl"])
def test_the_files_that_are_there(kind: str | None, folder: Path, server: Server, tmp_path: Path) -> None:
    put(folder, "b.jsonl", "greedy-short")
    put(folder, "a.jsonl", *ANSWERS)
    for other in (".hidden.jsonl", "notes.txt", "c.jsonl.part"):
        file_of(folder / other, "greedy")
    out = tmp_path / "out"
    call = [str(folder), "--verifier", server.url, "--out", str(out), *(["--verdicts", kind] if kind else [])]
    assert main(call) == 1
    suffix = ".parquet" if kind == "parquet" else ""
    assert {path.name for path in (out / "verdicts").iterdir()} == {f"a.jsonl{suffix}", f"b.jsonl{suffix}"}
    rows = verdicts(out / "verdicts" / f"a.jsonl{suffix}")
    assert [row["verdict"] for row in rows] == VERDICTS
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert {row["file"] for row in rows} == {"a.jsonl"}
    assert all(row["id"] for row in rows)
    assert "proofs: activations" in rows[1]["reasons"]
    assert (out / "files" / "a.jsonl" / "index.html").exists()
    assert json.loads((out / "summary.json").read_text())["total"]["responses"] == 4
    asked = server.asked
    assert main(call) == 1
    assert server.asked == asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_files_that_come(number: int, folder: Path, follow: Callable[..., Following], tmp_path: Path) -> None:
    running, out = follow(), tmp_path / "out"
    for name in ("step-1.jsonl", "step-2.jsonl"):
        put(folder, name, *ANSWERS)
        until((out / "verdicts" / name).exists)
        assert [row["verdict"] for row in verdicts(out / "verdicts" / name)] == VERDICTS
    status, said = running.stop(number)
    assert status == 1, said
    assert "all 6" in " ".join(said.split())


def test_nothing_is_lost_when_it_is_stopped(
    folder: Path, follow: Callable[..., Following], server: Server, tmp_path: Path
) -> None:
    """Stopped in the middle of a file, what verifiers have is waited for, and nothing is asked twice."""
    put(folder, "long.jsonl", *["greedy-short", "greedy"] * 12)
    before, reports = server.asked, tmp_path / "out" / "files" / "long.jsonl" / "reports.jsonl"
    running = follow()
    until(lambda: reports.exists() and reports.read_bytes().count(b"\n") >= 3)
    status, said = running.stop(signal.SIGTERM)
    assert status == 0, said
    assert "the same call goes on from here" in said
    assert "Traceback" not in said
    kept = reports.read_bytes().count(b"\n")
    assert 3 <= kept < 24
    assert not (tmp_path / "out" / "verdicts").exists()
    assert server.asked - before == kept
    again = follow()
    until((tmp_path / "out" / "verdicts" / "long.jsonl").exists)
    assert again.stop(signal.SIGTERM)[0] == 0
    assert server.asked - before == 24
    assert [row["row"] for row in verdicts(tmp_path / "out" / "verdicts" / "long.jsonl")] == list(range(24))


def test_a_file_that_cannot_be_read(folder: Path, follow: Callable[..., Following], tmp_path: Path) -> None:
    """The first ends the command, which was called wrongly; a later one is passed over until it is another."""
    (folder / "a.parquet").write_bytes(b"PAR1")
    call = [str(folder), "--verifier", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path / "other")]
    with pytest.raises(ToplocError, match=r"a\.parquet: no whole Parquet file"):
        main(call)
    (folder / "a.parquet").rename(folder / "z.parquet")
    put(folder, "a.jsonl", "greedy-short")
    running = follow()
    until((tmp_path / "out" / "verdicts" / "a.jsonl").exists)
    put(folder, "b.jsonl", "greedy-short")
    until((tmp_path / "out" / "verdicts" / "b.jsonl").exists)
    status, said = running.stop(signal.SIGTERM)
    assert status == 2
    assert said.count("passed over") == 1


def test_calls_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    url = ["--verifier", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path / "r")]
    with pytest.raises(ToplocError, match="no such folder"):
        main([str(folder / "none"), "--follow", *url])
    with pytest.raises(ToplocError, match="--ray"):
        main([str(folder), "--ray", "model", "--out", str(tmp_path / "r")])
