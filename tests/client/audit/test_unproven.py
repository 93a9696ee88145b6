"""`toploc audit --without-proofs` of the recorded answers, with reports by transformers behind a server of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from recorded import file_of
from toploc_client.audit.command import main
from toploc_client.audit.entry import entry_of
from toploc_client.audit.surprise import Surprises

from toploc.errors import ToplocError
from toploc.report import Check, Report

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Server

HONEST = ["greedy", "greedy-short", "completion"]
UNKNOWN = ["sampled", "tool-call"]


def audit(server: Server, file: Path, out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    status = main([str(file), "--verifier", server.url, "--out", str(out), "--without-proofs", *options])
    return status, json.loads((out / "summary.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("names", "status", "weak"),
    [(HONEST, 0, 3), ([*HONEST, *UNKNOWN], 2, 3), ([*HONEST, "finetuned-greedy"], 1, 3), (["no-proofs"], 0, 1)],
)
def test_exit_status(server: Server, tmp_path: Path, names: list[str], status: int, weak: int) -> None:
    """What was looked at and shows nothing is no failure of the audit; what could not be is; nothing is accepted."""
    found, summary = audit(server, file_of(tmp_path / "e.jsonl", *names), tmp_path / "r")
    assert found == status
    assert summary["total"]["accepted"] == 0
    assert summary["without_proofs"]["answers"] == len(names)
    assert summary["without_proofs"]["weak"] == weak


def test_what_is_printed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit(server, file_of(tmp_path / "e.jsonl", *HONEST, *UNKNOWN), tmp_path / "r")
    printed = capsys.readouterr().out
    assert (
        "without proofs: 3 of 5 answers show nothing, which proves nothing; the tokens of 3 of 5 are known" in printed
    )
    assert "100.00% of" in printed
    assert "margins pooled over answers: toploc-mini: no alarm in 3 greedy or replayed answers" in printed


def test_a_folder_is_of_one_kind_of_audit(server: Server, tmp_path: Path) -> None:
    file, out = file_of(tmp_path / "e.jsonl", "greedy"), tmp_path / "r"
    audit(server, file, out)
    with pytest.raises(ToplocError, match="--without-proofs"):
        main([str(file), "--verifier", server.url, "--out", str(out)])
    with pytest.raises(ToplocError, match="--without-proofs"):
        audit(server, file, out, "--sampling", '[{"temperature": 1}]')


@pytest.mark.parametrize("sampling", ["{", "[]", '[{"seed": 1}]', '[{"temperature": -1}]', "7"])
def test_sampling_that_is_none(server: Server, tmp_path: Path, sampling: str) -> None:
    with pytest.raises(ToplocError, match="--sampling"):
        audit(server, file_of(tmp_path / "e.jsonl", "greedy"), tmp_path / "r", "--sampling", sampling)


def test_sampling_without_its_option(server: Server, tmp_path: Path) -> None:
    call = [str(file_of(tmp_path / "e.jsonl", "greedy")), "--verifier", server.url, "--sampling", "[{}]"]
    with pytest.raises(ToplocError, match="--without-proofs"):
        main(call)


def test_sampling_is_swept(server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", "greedy")
    evidence = json.loads(file.read_text("utf-8"))
    del evidence["request"]["temperature"]
    file.write_text(json.dumps(evidence), "utf-8")
    options = '[{"temperature": 0}, {"temperature": 1}]'
    assert audit(server, file, tmp_path / "r", "--sampling", options)[0] == 0
    [entry] = (tmp_path / "r" / "reports.jsonl").read_text("utf-8").splitlines()
    [check] = [one for one in json.loads(entry)["report"]["checks"] if one["name"] == "tokens"]
    assert [one["options"] for one in check["figures"]["swept"]] == json.loads(options)


def test_evidence_that_says_itself_how_it_is_held(server: Server, tmp_path: Path) -> None:
    file = file_of(tmp_path / "e.jsonl", "greedy")
    evidence = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**evidence, "proofs": "none"}) + "\nno JSON {}\n[1]\n", "utf-8")
    status, summary = audit(server, file, tmp_path / "r")
    assert status == 2
    assert summary["without_proofs"]["weak"] == 1
    assert summary["total"]["undecided"] == 3


def swept(*ratios: dict[str, float] | None) -> Report:
    listed = [{"options": {"temperature": place}, "log_ratios": one} for place, one in enumerate(ratios)]
    check = {"name": "tokens", "status": "weak", "choice": 0, "reason": "unseeded", "message": ""}
    return Report.of([Check.model_validate({**check, "figures": {"swept": listed}})], model="m")


def test_what_is_left_out_is_taken_off_what_is_not() -> None:
    """Of texts whose tokens are known for half, each answer counts log 2 less; ids count in full."""
    sums = {}
    for source in ("text", "ids"):
        surprises = Surprises()
        for line in range(1, 101):
            check = {"name": "tokens", "choice": 0, "message": ""}
            known = {"status": "weak", "reason": "unseeded", "figures": {"log_ratios": {"0.1": 0.5}, "source": source}}
            unknown = {"status": "undecided", "reason": "count_differs"}
            report = Report.of([Check.model_validate({**check, **(known if line % 2 else unknown)})], model="m")
            surprises.add(entry_of(line, 0, "", b"", report))
        [one] = surprises
        sums[source] = (one.test.answers, surprises.raised)
    assert sums == {"text": (50, False), "ids": (50, True)}


def test_only_what_all_options_find_is_an_alarm() -> None:
    """An honest provider draws under one of them."""
    loud, quiet = {"0.1": 0.5}, {"0.1": -0.1}
    for reports, raised in (([loud, quiet], False), ([loud, loud], True)):
        surprises = Surprises()
        for line in range(1, 41):
            surprises.add(entry_of(line, 0, "", b"", swept(*reports)))
        assert surprises.raised == raised
        [one] = surprises
        assert one.to_json()["options"] in ({"temperature": 0}, {"temperature": 1})
        assert ("as if asked with" in str(one)) == ("ALARM" in str(one) or not raised)


def test_answers_whose_request_says_all_options_stand_for_themselves() -> None:
    """Whatever those of the others are, but an alarm of theirs."""
    plain = {"name": "tokens", "status": "weak", "choice": 0, "reason": "unseeded", "message": ""}
    for ratio, shown in ((-0.1, 2), (0.5, 40)):
        surprises = Surprises()
        for line in (1, 2):
            check = Check.model_validate({**plain, "figures": {"log_ratios": {"0.1": 0.0}}})
            surprises.add(entry_of(line, 0, "", b"", Report.of([check], model="m")))
        for line in range(3, 43):
            surprises.add(entry_of(line, 0, "", b"", swept({"0.1": ratio}, {"0.1": 0.5})))
        [one] = surprises
        assert (one.test.answers, surprises.raised) == (shown, shown == 40)


@pytest.mark.parametrize("swept_figure", [None, 7, [None], [{"options": 1}], [{"log_ratios": {"a": "x"}}]])
def test_what_a_verifier_may_say_of_a_sweep(swept_figure: object) -> None:
    surprises = Surprises()
    check = {"name": "tokens", "status": "weak", "choice": 0, "reason": "unseeded", "message": ""}
    report = Report.of([Check.model_validate({**check, "figures": {"swept": swept_figure}})], model="m")
    surprises.add(entry_of(1, 0, "", b"", report))
    assert not [*surprises]
