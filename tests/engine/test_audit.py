"""`toploc audit` from end to end: answers of one server, kept by the client, held against two that verify."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from toploc_client import OpenAI
from toploc_proxy.local_server import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from asking import Api
    from toploc_proxy.local_server import LocalServer

NAME = "toploc-mini"
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def evidence(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 answers of every route, one without proofs, four that were not given to their request, and a torn line."""
    path: Path = tmp_path_factory.mktemp("evidence") / "answers.jsonl"
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", evidence=path) as client:
        for place in range(8):
            chat: dict[str, Any] = {"model": NAME, "messages": STORY, "temperature": 0, "max_tokens": 33 + place}
            client.chat.completions.create(**chat)
            list(client.chat.completions.create(stream=True, **chat))
            client.chat.completions.create(n=2, **{**chat, "temperature": 1, "max_tokens": 5})
            client.completions.create(model=NAME, prompt=["one, two", "January"], max_tokens=9, temperature=0)
            client.responses.create(model=NAME, input="What is 17 + 25?", max_output_tokens=40, temperature=0)
            with client.responses.stream(model=NAME, input="Hello", max_output_tokens=40, temperature=0) as stream:
                stream.until_done()
        client.chat.completions.create(model=NAME, messages=SUM, extra_body={"toploc": {"enabled": False}})
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 49
    # Two are enough for an alarm by the one verifier, and not by the other.
    for line in (*lines[:2], *lines[6:8]):
        found = json.loads(line)
        found["request"]["messages"] = SUM
        lines.append(json.dumps(found))
    path.write_text("\n".join([*lines, '{"request": {"mod']), "utf-8")
    return path


def audit(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "toploc", "audit", *map(str, arguments), "--api-key-env", "VERIFIERS_KEY"]
    environment = {**os.environ, "VERIFIERS_KEY": "s3cret"}
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_one_prover_and_two_verifiers(
    evidence: Path, server: LocalServer, verifier: LocalServer, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    dead = f"http://127.0.0.1:{free_port()}"
    servers = [part for url in (server.url, verifier.url, dead) for part in ("--verifier", url)]
    done = audit(evidence, *servers, "--out", out)
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if "left out" in line] == [
        line for line in done.stderr.splitlines() if dead in line
    ]
    entries = [json.loads(line) for line in (out / "reports.jsonl").read_bytes().splitlines()]
    verdicts = {entry["line"]: entry["report"]["verdict"] for entry in entries}
    assert Counter(verdicts.values()) == {"accepted": 48, "rejected": 4, "undecided": 1}
    assert [verdicts[line] for line in range(49, 54)] == ["undecided", *["rejected"] * 4]
    assert {entry["verifier"] for entry in entries} == {server.url, verifier.url}
    total = json.loads((out / "summary.json").read_bytes())["total"]
    assert (total["responses"], total["accepted"], total["rejected"], total["undecided"]) == (54, 48, 4, 2)
    assert total["tokens"] == sum(entry["tokens"] for entry in entries) > 0
    pooled = [line for line in done.stdout.splitlines() if " pooled over answers: " in line]
    # Of 48 honest answers and four of other requests' text.
    assert ["ALARM" in line for line in pooled] == [True, False]
    assert re.match(r"margins pooled .* at answer \d+, line 5[0-3];", pooled[0])
    [head, *rows] = [line for line in done.stdout.splitlines() if line not in pooled]
    all_of_them = rows[-1]
    assert head.split()[:3] == ["model", "day", "responses"]
    assert rows[0].startswith(NAME)
    assert all_of_them.split()[:2] == ["all", "54"]
    assert "All 4 rejected responses are on this page." in (out / "index.html").read_text("utf-8")
    # Nothing is left to do, so no verifier is asked: not even the dead one is noticed.
    again = audit(evidence, "--verifier", dead, "--out", out)
    assert (again.returncode, again.stdout) == (1, done.stdout)


def test_answers_that_are_all_accepted(evidence: Path, verifier: LocalServer, tmp_path: Path) -> None:
    honest = tmp_path / "honest.jsonl"
    honest.write_text("\n".join(evidence.read_text("utf-8").splitlines()[:12]), "utf-8")
    done = audit(honest, "--verifier", f"{verifier.url}/v1", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rollouts_in_parquet(server: LocalServer, api: Api, tmp_path: Path) -> None:
    """As a trainer keeps them: ids and proofs, no text and no reason to end."""
    rows = []
    for place in range(12):
        options: dict[str, Any] = {"temperature": float(place % 2), "max_tokens": 20 + place, "ignore_eos": True}
        prompt = [*range(300, 340), 350 + place]
        proofs = api.post("/v1/completions", prompt=prompt, **options)["toploc_proofs"]
        ids = proofs["choices"][0]["token_ids"]
        said = {"proofs": json.dumps(proofs), "sampling_params": json.dumps(options)}
        rows.append({"prompt": prompt, "ids": ids, **said})
    rows.append({**rows[0], "ids": [*rows[0]["ids"][:-1], 7]})
    rows.append({**rows[0], "prompt": rows[1]["prompt"]})
    rows.append({**rows[0], "sampling_params": '{"temperature": 0, "max_tokens": 400, "ignore_eos": true}'})
    folder = tmp_path / "rollouts"
    folder.mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), folder / "step-1.parquet")
    columns = "prompt_token_ids=prompt,token_ids=ids"
    done = audit(folder, "--verifier", server.url, "--out", tmp_path / "report", "--columns", columns)
    assert done.returncode == 1, done.stderr
    verdicts = parquet.read_table(tmp_path / "report" / "verdicts" / "step-1.parquet").to_pylist()
    assert [row["row"] for row in verdicts] == list(range(15))
    assert [row["verdict"] for row in verdicts] == ["accepted"] * 12 + ["rejected"] * 3, verdicts
    assert [row["reasons"].split(";")[0] for row in verdicts[12:]] == [
        "response: response_differs",
        "prompt: prompt_digest",
        "response: cut_short",
    ]
    # Each receipt is of its row's prompt and tokens, and blames nobody for options that the row says.
    lines = (tmp_path / "report" / "files" / "step-1.parquet" / "reports.jsonl").read_text("utf-8").splitlines()
    reports = sorted(map(json.loads, lines), key=lambda line: line["line"])
    receipts = [c["status"] for line in reports for c in line["report"]["checks"] if c["name"] == "receipt"]
    assert receipts == ["passed"] * 12 + ["failed", "skipped", "skipped"]
