"""`toploc audit` of the recorded answers, with verdicts by transformers behind a server of its own."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from recorded import RECORDED, file_of
from toploc_client.audit import dispatch
from toploc_client.audit.alarms import MOST_TESTS, Alarms
from toploc_client.audit.command import main
from toploc_client.audit.entry import entry_of
from toploc_proxy.local_server import free_port

from toploc.errors import ToplocError
from toploc.report import Check, Report

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server

REJECTED = {"finetuned-greedy", "finetuned-sampled", "int4-greedy", "int4-sampled", "other-system"}
ERRORS = {"no-output", "no-proofs", "seeded", "tool-call"}


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text("utf-8"))
    return found


def test_table_and_exit_status_with_a_dead_verifier(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = file_of(tmp_path / "e.jsonl", *RECORDED, end='{"torn'), tmp_path / "report"
    dead = f"http://127.0.0.1:{free_port()}"
    assert main([str(file), "--verifier", dead, "--verifier", server.url, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert f"left out: {dead}" in printed.err
    total = summary(out)["total"]
    counts = (len(RECORDED) + 1, len(RECORDED) - len(REJECTED | ERRORS), len(REJECTED), len(ERRORS) + 1)
    assert (total["responses"], total["accepted"], total["rejected"], total["undecided"]) == counts
    assert total["worst"]["mismatches"]["figure"] > total["worst"]["mismatches"]["bound"]
    assert {row["model"] for row in summary(out)["rows"]} == {"toploc-mini", "unknown"}
    assert "2026-11-24" in printed.out


@pytest.mark.parametrize(("names", "status"), [(["greedy"], 0), (["greedy", "no-proofs"], 2), (["int4-greedy"], 1)])
def test_exit_status(server: Server, tmp_path: Path, names: list[str], status: int) -> None:
    file = file_of(tmp_path / "e.jsonl", *names)
    assert main([str(file), "--verifier", server.url, "--out", str(tmp_path / "r")]) == status


def test_an_alarm_over_answers(pooling_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    honest = ["greedy", "sampled", "two-choices", "greedy-short"] * 7
    printed = {}
    for name, lines, status in (("honest", honest, 0), ("copy", [*honest, *["int4-sampled"] * 9], 1)):
        file = file_of(tmp_path / f"{name}.jsonl", *lines)
        assert main([str(file), "--verifier", pooling_server.url, "--out", str(tmp_path / name)]) == status
        printed[name] = capsys.readouterr().out
    [fair], [altered] = (summary(tmp_path / name)["alarms"] for name in ("honest", "copy"))
    # A response of two choices counts as two answers, one without a whole chunk as none.
    assert (fair["answers"], fair["alarm"], fair["line"]) == (28, None, None)
    assert fair["highest"] < fair["threshold"] == pytest.approx(6 + math.log(28 / 20))
    assert (altered["answers"], altered["alarm"], altered["line"]) == (37, 29, 29)
    assert altered["threshold"] == pytest.approx(6 + math.log(37 / 20))
    # An alarm is the first that is to be read; that there is none stands below the table.
    assert "paper, pooled, against int4: no alarm in 28 answers" in printed["honest"].splitlines()[-1]
    assert "paper, pooled, against int4: ALARM at answer 29 of 37, line 29" in printed["copy"].splitlines()[0]


def test_answers_of_another_engine_are_counted_and_not_accepted(
    pooling_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What says that it is another engine than the test is for is not summed up, and none of it is accepted; what is
    rejected by itself stays so."""
    file = file_of(tmp_path / "evidence.jsonl", *["greedy", *["sampled"] * 4, *["int4-sampled"] * 4])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines[1:]:
        line["response"]["toploc_proofs"]["engine"] = {"name": "vllm", "version": "9", "execution": "of no calibration"}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(file), "--verifier", pooling_server.url, "--out", str(tmp_path / "out")]) == 1
    found = summary(tmp_path / "out")
    assert found["not_comparable"] == 8
    assert [found["total"][verdict] for verdict in ("accepted", "undecided", "rejected")] == [1, 4, 4]
    assert {"verdict": "undecided", "reason": "pooled: not_comparable", "answers": 4} in found["reasons"]
    assert [alarm["answers"] for alarm in found["alarms"]] == [1]
    assert "not comparable: 8 answers by an engine" in capsys.readouterr().out.splitlines()[-1]


def report_with(**changes: Any) -> Report:
    values = {"threshold": 6.0, "audits": 20, "false_alarm": 0.01}
    check = {
        "name": "pooled",
        "status": "skipped",
        "reason": "no_bound",
        "message": "",
        "figures": {"evidence": {"int4": 7.0}},
        "thresholds": {"name": "x", "alarms": {"int4": values}},
    }
    return Report.of([Check.model_validate({**check, **changes})])


@pytest.mark.parametrize(
    "changes",
    [
        {"figures": {}},
        {"figures": {"evidence": 3}},
        {"figures": {"evidence": {"int4": "7"}}},
        {"figures": {"evidence": {"int4": [7.0]}}},
        {"thresholds": {}},
        {"thresholds": {"name": "x", "alarms": {"int4": None}}},
        {"thresholds": {"name": "y", "alarms": {"int4": {"threshold": 9, "audits": 0.1, "false_alarm": 0.01}}}},
        {"thresholds": {"name": "x", "alarms": {"int4": {"threshold": -1, "audits": 20, "false_alarm": 0.01}}}},
        {"thresholds": {"name": "x", "alarms": {"int4": {"threshold": "6", "audits": 20, "false_alarm": 0.01}}}},
    ],
)
def test_what_a_verifier_may_say_of_the_test(changes: dict[str, Any]) -> None:
    alarms = Alarms()
    alarms.add(entry_of(1, 0, "", b"", report_with(**changes)))
    assert not alarms.raised
    alarms.add(entry_of(2, 0, "", b"", report_with()))
    assert not any("1 answers" in str(alarm) for alarm in alarms)
    assert [alarm.line for alarm in alarms if alarm.thresholds == "x"] == [2]


def test_tests_are_bounded() -> None:
    alarms = Alarms()
    for number in range(1000):
        thresholds = {"name": f"{number}", "alarms": {"int4": {"threshold": 9, "audits": 20, "false_alarm": 0.01}}}
        alarms.add(entry_of(number, 0, "", b"", report_with(thresholds=thresholds)))
    assert len(alarms) == MOST_TESTS


def test_goes_on_after_a_kill(server: Server, tmp_path: Path) -> None:
    file, out = file_of(tmp_path / "e.jsonl", *["greedy-short", "int4-greedy"] * 10), tmp_path / "report"
    call = [str(file), "--verifier", server.url, "--out", str(out), "--in-flight", "2"]
    process = subprocess.Popen([sys.executable, "-m", "toploc", "audit", *call])
    reports = out / "reports.jsonl"
    while process.poll() is None and not (reports.exists() and reports.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    process.kill()
    process.wait()
    with reports.open("ab") as torn:
        torn.write(b'{"line": 20, "sha')
    before = reports.read_bytes().count(b"\n")
    assert 5 <= before < 20
    asked = server.asked
    assert main(call) == 1
    # The killed audit's last requests may still be answered.
    assert 20 - before <= server.asked - asked <= 20 - before + 4
    lines = [json.loads(line) for line in reports.read_bytes().splitlines()]
    assert sorted(line["line"] for line in lines) == list(range(1, 21))
    assert summary(out)["total"]["rejected"] == 10


def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(server: Server, tmp_path: Path) -> None:
    file, out = file_of(tmp_path / "e.jsonl", *["greedy-short", "greedy"] * 8), tmp_path / "report"
    call = [str(file), "--verifier", server.url, "--out", str(out), "--in-flight", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "toploc", "audit", *call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    reports = out / "reports.jsonl"
    while process.poll() is None and not (reports.exists() and reports.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert printed == ""
    done = reports.read_bytes().count(b"\n")
    assert 3 <= done < 16
    assert said.strip() == (f"toploc audit: stopped with {done} reports in {reports}; the same call goes on from there")
    assert main(call) == 0
    assert summary(out)["total"]["accepted"] == 16


def test_a_verifier_that_dies_at_work(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has taken requests and holds their connections, as a machine that lost its power seems to."""
    monkeypatch.setattr(dispatch, "PROBE", 0.1)
    dead = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(500 if dead.is_set() else 200)
            self.end_headers()
            self.wfile.write(b'{"scheme": "toploc-gf65497"}')

        def do_POST(self) -> None:
            dead.set()
            over.wait(60)

    over = threading.Event()
    file = file_of(tmp_path / "e.jsonl", *["greedy-short"] * 8)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as hanging:
        threading.Thread(target=hanging.serve_forever).start()
        url = f"http://127.0.0.1:{hanging.server_address[1]}"
        try:
            assert main([str(file), "--verifier", url, "--verifier", server.url, "--out", str(tmp_path / "r")]) == 0
        finally:
            over.set()
            hanging.shutdown()
    assert dead.is_set()
    assert f"left out: {url}" in capsys.readouterr().err
    assert summary(tmp_path / "r")["total"]["accepted"] == 8


def test_what_verifiers_and_providers_say_does_not_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a verifier's error nor an answer's model reaches the terminal with its control characters."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self, status: int, value: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def do_GET(self) -> None:
            self.reply(200, {"scheme": "toploc-gf65497"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.reply(500, {"error": {"message": "\x1b[2J\x1b]0;owned\x07\u202e"}})

    file = tmp_path / "e.jsonl"
    answer = json.loads(RECORDED["greedy"])
    answer["response"]["model"] = "\x1b[1Amodel"
    file.write_text(json.dumps(answer), "utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as raw:
        threading.Thread(target=raw.serve_forever).start()
        url = f"http://127.0.0.1:{raw.server_address[1]}"
        try:
            assert main([str(file), "--verifier", url, "--out", str(tmp_path / "r"), "--wait", "0"]) == 2
        finally:
            raw.shutdown()
    printed = capsys.readouterr()
    assert "owned" in printed.err
    assert "model" in printed.out
    assert all(character.isprintable() or character in "\n\r" for character in printed.out + printed.err)


def test_no_verifier_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path / "e.jsonl", "greedy", "greedy-short")
    call = [str(file), "--verifier", f"http://127.0.0.1:{free_port()}", "--out", str(tmp_path / "r")]
    assert main(call) == 2
    assert "no verifier is left" in capsys.readouterr().err
    assert summary(tmp_path / "r")["total"]["undecided"] == 2
    assert (tmp_path / "r" / "reports.jsonl").read_bytes() == b""


def test_a_share_is_drawn_by_the_seed_and_another_file_refused(server: Server, tmp_path: Path) -> None:
    file, out = file_of(tmp_path / "e.jsonl", *sorted(RECORDED)), tmp_path / "r"
    call = [str(file), "--verifier", server.url, "--out", str(out), "--sample", "0.3", "--seed", "a"]
    main(call)
    drawn = summary(out)["total"]["responses"]
    assert 0 < drawn < len(RECORDED)
    asked = server.asked
    main(call)
    assert server.asked == asked
    with pytest.raises(ToplocError, match="choose another --out"):
        main([*call[:-1], "b"])
    file_of(file, *sorted(RECORDED, reverse=True))
    with pytest.raises(ToplocError, match="choose another --out"):
        main(call)


def test_imports_no_torch() -> None:
    code = "import sys, toploc_client.audit.command; assert not {'torch', 'numpy', 'vllm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
