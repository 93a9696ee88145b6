"""The runner: programs that do not answer, end, or answer something else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from toploc.conformance.__main__ import ask, main
from toploc.conformance.answers import difference, problem_of
from toploc.conformance.cases import FAMILIES, Case, load
from toploc.conformance.program import MAX_ANSWER, MAX_STARTS
from toploc.conformance.table import table_of
from toploc.errors import ToplocError

ROOT = Path(__file__).parents[3]
CASE = Case("reports/report/a", "report", {"checks": []}, {"verdict": "undecided"})
RIGHT = json.dumps({"id": CASE.id, "output": CASE.output})
ECHO = f"import sys\nfor line in sys.stdin: print('''{RIGHT}''', flush=True)"


def problems(program: str, count: int = 1, timeout: float = 60) -> list[str | None]:
    results = asyncio.run(ask([CASE] * count, [sys.executable, "-c", program], timeout))
    return [result.problem for result in results]


def test_right_answers() -> None:
    assert problems(ECHO, 3) == [None] * 3


def test_no_answer_in_time_and_a_fresh_start() -> None:
    assert problems("import time; time.sleep(600)", 2, 0.3) == ["no answer within 0.3 s"] * 2


def test_one_that_reads_nothing_is_not_waited_for() -> None:
    long = Case("a", "b", "x" * 2**20, {})
    [result] = asyncio.run(ask([long], [sys.executable, "-c", "import time; time.sleep(600)"], 0.5))
    assert result.problem == "no answer within 0.5 s"


def test_what_a_shell_started_is_ended_too() -> None:
    [result] = asyncio.run(ask([CASE], ["sh", "-c", "sleep 86399; true"], 0.3))
    assert result.problem == "no answer within 0.3 s"
    # Killed with the shell, it may take a moment to be gone.
    for _ in range(100):
        listed = subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
        if "sleep 86399" not in listed:
            return
        time.sleep(0.1)
    pytest.fail("the shell's child runs on")


def test_a_program_that_ends_is_started_again_for_a_while() -> None:
    found = problems("import sys; sys.stdin.readline(); sys.exit(3)", MAX_STARTS + 1)
    assert found == [*["it ended, with status 3"] * MAX_STARTS, f"not asked: it was started {MAX_STARTS} times"]


def test_half_a_line_and_one_without_end() -> None:
    assert problems("import sys; sys.stdout.write('{')") == ["it ended, with status 0"]
    [problem] = problems(f"print('x' * {MAX_ANSWER + 1})")
    assert problem == f"an answer of more than {MAX_ANSWER:,} bytes"


def test_a_program_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToplocError, match="/no/such: cannot be started: No such file or directory"):
        asyncio.run(ask([CASE], ["/no/such"], 1))
    assert main(["/no/such"]) == 2
    assert capsys.readouterr().err == "/no/such: cannot be started: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--only", "moods", "x"], ["--timeout", "0", "x"], ["--timeout", "nan", "x"]]
)
def test_wrong_calls(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"hello", 'no JSON: "hello"'),
        (b"[" * 100_000, "no JSON: "),
        (b"\xff", "no JSON: "),
        (b"5", "expected an object of `id` and `output`, got 5"),
        (b'{"id": "a"}', "expected an object of `id` and `output`"),
        (b'{"id": "b", "output": {}}', 'an answer to "b"'),
        (b'{"id": "a", "output": []}', 'output: expected {"n": 1}, got []'),
        (b'{"id": "a", "output": {"n": 1.0}}', None),
        (b'{"id": "a", "output": {"n": NaN}}', "output.n: expected 1, got NaN"),
    ],
)
def test_answers_that_are_none(line: bytes, problem: str | None) -> None:
    found = problem_of(line, "a", {"n": 1})
    assert found is None if problem is None else (found or "").startswith(problem)


@pytest.mark.parametrize(
    ("expected", "got", "problem"),
    [
        ({"a": [1, {"b": "c"}]}, {"a": [1, {"b": "c"}]}, None),
        ({"a": [1, {"b": "c"}]}, {"a": [1, {"b": "d"}]}, '.a[1].b: expected "c", got "d"'),
        ({"a": 1}, {}, ".a: missing, expected 1"),
        ({}, {"a": 1}, ".a: not expected, got 1"),
        ([1], [1, 2], ": expected [1], got [1, 2]"),
        (True, 1, ": expected true, got 1"),
        (0, False, ": expected 0, got false"),
        (None, 0, ": expected null, got 0"),
        (2.0**64, 18446744073709552000, None),
        (1.5, "1.5", ': expected 1.5, got "1.5"'),
        (1.0, 10**400, ": expected 1.0, got 1000"),
    ],
)
def test_differences(expected: Any, got: Any, problem: str | None) -> None:
    found = difference(expected, got, "")
    assert found is None if problem is None else (found or "").startswith(problem)


def test_the_runner_needs_nothing_but_python() -> None:
    """Without site-packages: whoever writes a verifier in another language has none of ours."""
    runner = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from toploc.conformance.__main__ import main; "
    command = [sys.executable, "-IS", "-c", runner + "sys.exit(main(['--only', 'reports', 'cat']))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "expected an object of `id` and `output`" in done.stdout


def test_the_document_counts_the_cases() -> None:
    count = sum(len(load(family)) for family in FAMILIES)
    for page in ("docs/conformance.md", "CHANGELOG.md"):
        assert f"{count} cases" in (ROOT / page).read_text("utf-8")


def test_table() -> None:
    other = Case("reports/report/b", "report", 1, {"x": 1})
    results = asyncio.run(ask([CASE, other], [sys.executable, "-c", ECHO], 60))
    assert table_of(results).splitlines() == [
        "family    question   passed failed",
        "reports   report          1      1",
        "all                       1      1",
        "",
        "FAILED reports/report/b",
        '  an answer to "reports/report/a"',
        "  asked: 1",
    ]
