"""`toploc verify`: what it reads, prints and returns."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from toploc.cli import main as cli
from toploc.errors import ToplocError
from toploc.evidence.file import items
from toploc.evidence.strict_json import MAX_BYTES
from toploc.receipts.keys import SigningKey
from toploc.report import Report, malformed
from toploc.verifier import command
from toploc.verifier.command import main

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).parents[1] / "evidence"
MODEL = ["--model", str(ROOT / "models" / "toploc-mini"), "--thresholds", "toploc-mini"]


def test_verdicts_of_real_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file of JSON that is spread over lines; one of a line for each answer."""
    assert main([str(RECORDED / "greedy.json"), *MODEL]) == 0
    assert "ACCEPTED  toploc-mini" in capsys.readouterr().out
    lines = [json.dumps(json.loads((RECORDED / f"{n}.json").read_text("utf-8"))) for n in ("greedy", "int4-greedy")]
    (tmp_path / "two.jsonl").write_text("\n".join(lines) + "\n")
    assert main([str(tmp_path / "two.jsonl"), "--json", "--backend", "transformers", *MODEL]) == 1
    reports = [Report.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [report.verdict for report in reports] == ["accepted", "rejected"]
    assert main([str(RECORDED / "no-output.json"), *MODEL]) == 2


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report says whose answer it is; with names, those are the model's and no others, and all of them are."""
    evidence = json.loads((RECORDED / "greedy-short.json").read_text("utf-8"))

    def verdict(requested: str, answered: str, *names: str) -> str:
        evidence["request"]["model"] = requested
        evidence["response"]["model"] = evidence["response"]["toploc_proofs"]["model"] = answered
        (tmp_path / "named.json").write_text(json.dumps(evidence))
        options = [part for name in names for part in ("--name", name)]
        main(["--json", "--backend", "transformers", *MODEL[:2], *options, str(tmp_path / "named.json")])
        report = Report.model_validate_json(capsys.readouterr().out)
        assert report.model == answered
        assert answered in report.checks[0].message
        return report.checks[0].reason or report.verdict

    assert verdict("first", "first") == "accepted"
    assert verdict("second", "first") == "model_differs"
    assert verdict("second", "first", "first", "second") == "accepted"
    assert verdict("second", "second", "second") == "accepted"
    assert verdict("third", "first", "first", "second") == "model_differs"
    assert verdict("first", "first", "second") == "model_unknown"


def test_trusted_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signed answer counts for the provider's key, and another's receipt counts against it."""
    vectors = json.loads((ROOT / "docs" / "receipt-vectors.json").read_text("utf-8"))
    evidence = json.loads((RECORDED / "greedy-short.json").read_text("utf-8"))
    case = next(case for case in vectors["cases"] if case["evidence"] == "greedy-short")
    receipt = {"statement": json.loads(case["statement"]), "signature": case["signature"]}
    evidence["response"]["toploc_proofs"]["choices"][0]["receipt"] = receipt
    (tmp_path / "signed.json").write_text(json.dumps(evidence))
    (tmp_path / "keys.json").write_text(json.dumps(vectors["public_key"]))
    SigningKey.create(tmp_path / "other.pem")
    call = [str(tmp_path / "signed.json"), *MODEL]
    assert main(call) == 0
    assert "no_trusted_keys" in capsys.readouterr().out
    assert main([*call, "--trusted-keys", str(tmp_path / "keys.json")]) == 0
    assert (
        f"passed    receipt of choice 0: signed with key {vectors['public_key']['key_id']}" in capsys.readouterr().out
    )
    assert main([*call, "--trusted-keys", str(tmp_path / "other.pem")]) == 1
    assert "unknown_key" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', [1]),
        (b'{"a": 1}\n\n{"b": 2}\n', [1, 3]),
        (b'{\n"a": 1\n}\n', [1]),
        (b"nonsense\n{}\n", [1]),
        (b"", []),
        (b"\n \n", []),
    ],
)
def test_items(data: bytes, expected: list[int]) -> None:
    assert [number for number, _ in items(io.BytesIO(data))] == expected


def test_a_line_that_is_too_long_is_one_item() -> None:
    long = b'{"a": "' + b"x" * (2 * MAX_BYTES) + b'"}\n'
    found = list(items(io.BytesIO(b"{}\n" + long + b"{}\n")))
    assert [number for number, _ in found] == [1, 2, 3]
    assert len(found[1][1]) == MAX_BYTES + 1


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [(["accepted"], 0), (["accepted", "rejected"], 1), (["undecided", "accepted"], 2), (["undecided", "rejected"], 1)],
)
def test_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verdicts: list[str], status: int) -> None:
    left = iter(verdicts)
    fake = SimpleNamespace(verify=lambda _: malformed("x", "x").model_copy(update={"verdict": next(left)}))
    monkeypatch.setattr(command, "_load", lambda _: fake)
    (tmp_path / "f").write_text("{}\n" * len(verdicts))
    assert main([str(tmp_path / "f"), "--model", "m"]) == status


def test_errors_of_the_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    calls = (
        ["none.json", *MODEL],
        [str(tmp_path / "empty"), *MODEL],
        [str(tmp_path / "empty"), "--model", str(tmp_path / "no-model")],
        [str(tmp_path / "empty"), *MODEL[:2], "--thresholds", "none"],
    )
    for call in calls:
        with pytest.raises(ToplocError):
            main(call)
        monkeypatch.setattr(sys, "argv", ["toploc", "verify", *call])
        assert cli() == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_is_light() -> None:
    code = (
        "import sys, toploc.verifier.command as c\n"
        "try: c.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numba', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exit status" in done.stdout


def test_a_count_ends_the_reports_on_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(json.loads((RECORDED / f"{n}.json").read_text("utf-8"))) for n in ("greedy", "int4-greedy")]
    (tmp_path / "two.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    assert main([str(tmp_path / "two.jsonl"), *MODEL]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 answers: 2 accepted, 1 rejected"
    main([str(RECORDED / "greedy.json"), *MODEL])
    assert "answers:" not in capsys.readouterr().out


def test_nothing_is_said_when_its_reader_goes(tmp_path: Path) -> None:
    """As under `| head -0`."""
    file = tmp_path / "many.jsonl"
    file.write_text("{}\n" * 5000)
    command = [sys.executable, "-m", "toploc", "verify", str(file), *MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 141
    assert b"Traceback" not in said
    assert b"Broken" not in said
