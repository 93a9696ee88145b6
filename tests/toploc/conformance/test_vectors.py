"""The vectors are what the documents and fixtures say, ours passes by the door, and a broken rule shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import write_vectors
from wrong import RULES

from toploc.conformance.answers import difference
from toploc.conformance.cases import FAMILIES, load
from toploc.conformance.ours import QUESTIONS

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
OURS = (sys.executable, "-m", "toploc.conformance.ours")
FIRST = {family: next(name for name, rule in RULES.items() if rule.family == family) for family in FAMILIES}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toploc.conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_as_the_script_writes_them(family: str) -> None:
    """`write_vectors.py --check`, in this process."""
    assert (write_vectors.VECTORS / f"{family}.jsonl").read_text("utf-8") == write_vectors.written(family)


def test_every_question_is_asked_and_answered_in_both_ways() -> None:
    cases = [case for family in FAMILIES for case in load(family)]
    assert {case.question for case in cases} == QUESTIONS.keys()
    refusals = {case.question for case in cases if case.output.keys() & {"malformed", "unprovable"}}
    assert refusals == QUESTIONS.keys() - {"receipt", "canonical"}


def test_ours_passes() -> None:
    done = run(*OURS)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    count = sum(len(load(family)) for family in FAMILIES)
    assert f"{'all':20}{count:7}{0:7}" in done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_that_breaks_a_rule_fails(family: str) -> None:
    done = run("--only", family, sys.executable, HERE / "wrong.py", FIRST[family])
    assert done.returncode == 1, (done.stdout, done.stderr)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert 0 < len(failed) < len(load(family))
    assert all(line.startswith(f"FAILED {family}/") for line in failed)


@pytest.mark.parametrize("name", RULES)
def test_every_broken_rule_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = load(RULES[name].family)
    assert [case.id for case in cases if difference(case.output, QUESTIONS[case.question](case.input), "")] == []
    RULES[name].break_it(monkeypatch.setattr)
    assert [case.id for case in cases if difference(case.output, QUESTIONS[case.question](case.input), "")]


def test_typescript_passes() -> None:
    """From docs/proof-format.md alone, by a Node.js that runs TypeScript."""
    node = shutil.which("node", path=f"{ROOT / 'build/node/node_modules/.bin'}{os.pathsep}{os.environ['PATH']}")
    if node is None:
        pytest.skip("no Node.js")
    runs = subprocess.run([node, "-p", "process.features.typescript"], capture_output=True, text=True, check=True)
    if runs.stdout.strip() != "strip":
        pytest.skip("this Node.js does not run TypeScript: make test-frameworks")
    done = run("--only", "proofs", node, ROOT / "docs" / "examples" / "verify.ts")
    assert done.returncode == 0, (done.stdout, done.stderr)
