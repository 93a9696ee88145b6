"""The commands of docs/protocol.md, run as they stand there, and what they are said to give."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toploc.protocol import ToplocProofs
from toploc.report import Report

if TYPE_CHECKING:
    from toploc_proxy.local_server import LocalServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
FENCED = re.findall(r"^```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
BLOCKS = [block for block in FENCED if "curl" in block]
# A block of one curl after another is as many commands; one with variables or pipes belongs together.
COMMANDS = [
    command
    for block in BLOCKS
    for command in (re.split(r"\n(?=curl )", block) if block.startswith("curl") else [block])
]


def run(command: str, server: LocalServer) -> str:
    ours = command.removeprefix("$ ").replace("localhost:8000", f"127.0.0.1:{server.port}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", ours], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    """Every JSON object in the output of curl: one, one after another, a line each, or an event each."""
    decoder, found = json.JSONDecoder(), []
    while (start := text.find("{")) >= 0:
        value, end = decoder.raw_decode(text[start:])
        found.append(value)
        text = text[start + end :]
    return found


def field(values: list[dict[str, Any]]) -> list[ToplocProofs]:
    return [ToplocProofs.model_validate(v["toploc_proofs"]) for v in values if "toploc_proofs" in v]


def test_the_page_has_commands_for_every_endpoint() -> None:
    paths = {"chat/completions", "completions", "responses", "messages", "toploc/verify", "toploc"}
    paths |= {"toploc/receipts", "toploc/proofs"}
    for path in paths:
        assert re.search(rf"localhost:8000/v1/{path}\b", "\n".join(COMMANDS)), path


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_command(server: LocalServer, number: int) -> None:
    command = COMMANDS[number]
    shown = command.startswith("$ ")
    found = objects(run(command.splitlines()[0] if shown else command, server))
    assert not any("error" in value for value in found), found
    if shown:
        [described], [claimed] = found, objects(command)
        assert described.keys() == claimed.keys()
        for part in ("thresholds", "limits", "engine"):
            assert described[part].keys() == claimed[part].keys()
        assert described["limits"] == claimed["limits"]
    elif "items" in command:
        reports = {line["index"]: Report.model_validate(line["report"]).verdict for line in found}
        assert reports == {0: "accepted", 1: "rejected"}
    elif "$request" in command:
        report, receipts = found
        assert Report.model_validate(report).accepted
        assert receipts
    elif '"proofs": "none"' in command:
        report = Report.model_validate(found[0])
        assert (report.verdict, report.weak) == ("undecided", True)
    elif "toploc/verify" in command:
        assert Report.model_validate(found[0]).accepted
    else:
        proofs = field(found)
        assert sum(len(one.choices or ()) for one in proofs) == (2 if "January" in command else 1)
