"""`toploc generate` and `toploc validate`: honest answers pass; 4-bit weights, another prompt, another model do not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pyarrow import parquet
from toploc_proxy.experiment.generate import main as generate
from toploc_proxy.experiment.validate import main as validate
from transformers import AutoConfig, AutoModelForCausalLM

from models import alter
from toploc.errors import ToplocError
from toploc.protocol import token_ids_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from toploc_proxy.local_server import LocalServer

    from toploc.verifier.prefill import TransformersPrefill

SAMPLES = 6
MODEL = "models/toploc-mini"
NAME = "toploc-mini"
PASSED = re.compile(
    r"^VERIFICATION PASSED: Mantissa error mean: [\d.]+ below [\d.]+ and median: \d+ below \d+ "
    r"and exp intersections: \d+ above \d+$",
    re.MULTILINE,
)
FAILED = re.compile(
    r"^VERIFICATION FAILED: Mantissa error mean: [\d.e+]+ above [\d.]+ or median: [\d.e+]+ above \d+ "
    r"or exp intersections: \d+ below \d+",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def made(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of the honest server."""
    folder = tmp_path_factory.mktemp("signatures")
    assert generate([*flags(folder), "--base_url", server.url, "--n_samples", "2"]) == 0
    # Goes on with those that are there.
    assert generate([*flags(folder), "--base-url", server.url, "--n-samples", str(SAMPLES)]) == 0
    return folder


def flags(folder: Path) -> list[str]:
    return ["--model_name", NAME, "--save_dir", str(folder), "--max_decode_tokens", "64", "--dataset_name", QUESTIONS]


QUESTIONS = "toploc-questions"
CALIBRATED = ["--thresholds", NAME]


def check(folder: Path, model: Path | str, *options: str) -> int:
    names = ["--decode_model_name", NAME, "--validate_model_name", str(model), "--save_dir", str(folder)]
    return validate([*names, "--n_samples", str(SAMPLES), *options])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / NAME / "evidence.jsonl").read_text("utf-8").splitlines()]


def test_each_prompt_is_asked_once(made: Path) -> None:
    assert sorted(int(line["request"]["metadata"]["sample"]) for line in lines(made)) == list(range(SAMPLES))


def test_other_flags_need_another_folder(made: Path) -> None:
    with pytest.raises(ToplocError, match=r"was made with --temperature 0\.8, this call has 0\.0"):
        generate([*flags(made), "--temperature", "0"])
    with pytest.raises(ToplocError, match="--max_decode_tokens 64, this call has 32"):
        check(made, MODEL, "--max_decode_tokens", "32")


@pytest.mark.parametrize("thresholds", [[], CALIBRATED], ids=["paper", "calibrated"])
def test_honest_answers_pass(made: Path, thresholds: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(made, MODEL, "--attn", "sdpa", "--tp", "1", *thresholds) == 0
    printed = capsys.readouterr().out
    assert len(PASSED.findall(printed)) == SAMPLES, printed
    if not thresholds:
        assert "below 10 and median" in printed
        assert "below 8 and exp" in printed
        assert "above 90" in printed
    [table] = (made / NAME).glob("*_sdpa_*.parquet")
    rows = parquet.read_table(table).to_pylist()
    assert len(rows) == 2 * SAMPLES
    assert all(row["passed"] and row["mismatches"] <= 38 for row in rows)


def test_a_second_call_reads_what_the_first_has_done(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(made, MODEL) == 0
    [journal] = (made / NAME).glob("*_default_*.jsonl")
    before = journal.read_bytes()
    printed = capsys.readouterr().out
    assert check(made, MODEL) == 0
    assert journal.read_bytes() == before
    assert capsys.readouterr().out == printed


def test_a_4_bit_copy_is_rejected(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are symmetric but for the choice of points, so the copy may as well be the verifier's."""
    assert check(made, alter.make("int4", MODEL, tmp_path / "int4"), *CALIBRATED) == 1
    assert len(FAILED.findall(capsys.readouterr().out)) == SAMPLES


def test_another_model_is_rejected(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same architecture from another seed, by the paper's bounds."""
    other = alter.shutil.copytree(MODEL, tmp_path / "other")
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(MODEL), dtype=torch.bfloat16).save_pretrained(other)
    assert check(made, other) == 1
    assert len(FAILED.findall(capsys.readouterr().out)) == SAMPLES


def test_another_prompt_is_rejected(
    made: Path, tmp_path: Path, prefill: TransformersPrefill, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the digest of the prompt that it is said to be: only activations tell."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "manifest.json").write_bytes((made / NAME / "manifest.json").read_bytes())
    with (folder / "evidence.jsonl").open("w", encoding="utf-8") as file:
        for line in lines(made):
            messages = line["request"]["messages"]
            messages.insert(0, {"role": "system", "content": "Answer in capitals."})
            prompt = prefill.render(messages)
            digest = {"num_tokens": len(prompt), "sha256": token_ids_sha256(prompt)}
            line["response"]["toploc_proofs"]["prompt"] = digest
            file.write(json.dumps(line) + "\n")
    assert check(tmp_path, MODEL, *CALIBRATED) == 1
    assert len(FAILED.findall(capsys.readouterr().out)) == SAMPLES
