"""`toploc calibrate` with the bundled model: the prover is its prefill with another attention kernel, which differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from models import alter
from toploc import Thresholds, build_proofs_base64
from toploc.calibration.command import main
from toploc.errors import ToplocError
from toploc.protocol import token_ids_sha256
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL = Path(__file__).parents[3] / "models" / "toploc-mini"
LENGTHS = (1, 3, 6, 12, 64)
ANSWERS = 2 * 20 * len(LENGTHS)


def evidence(prover: TransformersPrefill, number: int) -> dict[str, Any]:
    """An answer of random tokens; every length occurs among even numbers and among odd ones."""
    random = Random(number)
    prompt, token_ids = (
        [random.randrange(10, 900) for _ in range(size)] for size in (8, LENGTHS[number // 2 % len(LENGTHS)])
    )
    proofs = build_proofs_base64(prover.hidden_states(prompt, token_ids), 32, 128, skip_prefill=True)
    return {
        "request": {"model": "mini", "prompt": prompt, "max_tokens": len(token_ids), "ignore_eos": True},
        "response": {
            "object": "text_completion",
            "model": "mini",
            "choices": [{"index": 0, "text": "", "finish_reason": "length"}],
            "toploc_proofs": {
                "version": 1,
                "scheme": "toploc-gf65497",
                "chunk_size": 32,
                "topk": 128,
                "dtype": "bfloat16",
                "model": "mini",
                "prompt": {"num_tokens": len(prompt), "sha256": token_ids_sha256(prompt)},
                "choices": [{"index": 0, "token_ids": token_ids, "proofs": proofs}],
            },
        },
    }


def write(path: Path, items: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prover = TransformersPrefill(MODEL, attention="eager")
    folder = tmp_path_factory.mktemp("honest")
    return write(folder / "honest.jsonl", (evidence(prover, number) for number in range(ANSWERS)))


def call(honest: Path, out: Path, *options: str) -> int:
    return main([str(honest), "--model", str(MODEL), "--name", "mini", "--out", str(out), *options])


def test_a_calibration(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toploc.calibration.impostors.PAIRS", 100)
    copy = TransformersPrefill(alter.make("int4", MODEL, tmp_path / "int4"))
    altered = write(tmp_path / "int4.jsonl", (evidence(copy, number) for number in range(40)))
    out = tmp_path / "mini.yaml"
    tokens = Thresholds.load("toploc-mini").tokens
    document = yaml.safe_load((MODEL.parents[1] / "configs" / "thresholds" / "toploc-mini.yaml").read_text("utf-8"))
    document["tokens"]["near"] = 0.01
    out.write_text(yaml.safe_dump(document), "utf-8")
    assert call(honest, out, "--altered", f"int4={altered}", "--plots", str(tmp_path / "plots")) == 0
    made = Thresholds.load(out)
    assert (made.name, made.model, made.dtype, made.impostor_rate) == ("mini", "mini", "bfloat16", 0)
    assert [entry.rows for entry in made.bounds] == [1, 2, 4, 8, 32]
    paper = Thresholds.paper().bounds[0]
    assert all(entry.mantissa_mean < paper.mantissa_mean for entry in made.bounds)
    # Those come from another command, and are kept, but for what is finer than a step of the logits.
    assert made.tokens is not None
    assert tokens is not None
    assert made.tokens.near in (0.0625, 0.125)
    assert "the step of bfloat16 at logits of" in made.tokens.provenance
    changed = {"near": made.tokens.near, "provenance": made.tokens.provenance}
    assert made.tokens == tokens.model_copy(update=changed)
    assert "120 honest chunks of 100 answers" in made.provenance
    printed = capsys.readouterr().out
    assert "| int4 |" in printed
    assert "| 40 of 40 (91.2 % to 100 %) |" in printed
    # What it proposes for whole answers is shown, and off.
    assert "| the model, held out | 0 of 20 (0 % to 16.8 %) | - | - |" in printed
    assert re.search(r"\| int4 \| 4 of 4 \(39.8 % to 100 %\) \| 11\.\d+ \| 1 / 1 \|", printed)
    assert "Not written without --pooled." in printed
    assert made.pooled is None
    assert "do not discriminate" not in printed
    pictures = {path.name for path in (tmp_path / "plots").iterdir()}
    assert pictures == {f"rows-{rows}.{ending}" for rows in (1, 2, 4, 8, 32) for ending in ("png", "svg")}


def test_bounds_on_whole_answers(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toploc.calibration.impostors.PAIRS", 10)
    out = tmp_path / "mini.yaml"
    with pytest.raises(ToplocError, match="--prover"):
        call(honest, out, "--pooled")
    copy = TransformersPrefill(alter.make("int4", MODEL, tmp_path / "int4"))
    prover = "transformers, eager attention"
    few = write(tmp_path / "few.jsonl", (evidence(copy, number) for number in range(10)))
    with pytest.raises(ToplocError, match="int4: expected scores of at least two answers"):
        call(honest, out, "--pooled", "--prover", prover, "--altered", f"int4={few}")
    assert not out.exists()
    altered = write(tmp_path / "int4.jsonl", (evidence(copy, number) for number in range(40)))
    assert call(honest, out, "--pooled", "--prover", prover, "--altered", f"int4={altered}") == 0
    assert "Not written" not in capsys.readouterr().out
    made = Thresholds.load(out)
    assert made.pooled is not None
    assert made.pooled.provenance == prover
    assert made.pooled.bound is not None
    assert 1 < made.pooled.bound < 20
    assert made.pooled.copies["int4"].scores.mean > made.pooled.honest.mean + 1
    assert made.pooled.noise is not None
    assert made.hidden_size == 256
    assert 8 < len(made.pooled.noise.channels) < 256
    # Given again, the verifier refuses the copy by it.
    verifier = TransformersVerifier(TransformersPrefill(MODEL), names=["mini"], thresholds=made)
    for path, status in ((honest, "passed"), (altered, "failed")):
        report = verifier.verify(path.read_text("utf-8").splitlines()[8])
        [pooled] = [check for check in report.checks if check.name == "pooled"]
        assert pooled.status == status, str(report)
        assert "the error by channel is" in pooled.message
        [proofs] = [check for check in report.checks if check.name == "proofs"]
        chunks: Any = proofs.figures["chunks"]
        assert pooled.figures["score"] == pytest.approx(fmean(chunk["channel_error"] for chunk in chunks))


def test_bounds_for_a_pair_of_engines(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold for answers that name the engine, and are never above the model's own."""
    monkeypatch.setattr("toploc.calibration.impostors.PAIRS", 10)
    out = tmp_path / "mini.yaml"
    with pytest.raises(ToplocError, match="no such file; calibrate the model's own bounds first"):
        call(honest, out, "--pair")
    paper = yaml.safe_load((MODEL.parents[1] / "configs" / "thresholds" / "paper-bfloat16.yaml").read_text("utf-8"))
    out.write_text(yaml.safe_dump({**paper, "name": "mini"}), "utf-8")
    with pytest.raises(ToplocError, match="do not say which engine"):
        call(honest, out, "--pair")
    engine = {"name": "transformers", "version": "5", "attention": "eager"}
    named = [json.loads(line) for line in honest.read_text("utf-8").splitlines()]
    for item in named:
        item["response"]["toploc_proofs"]["engine"] = engine
    answers = write(tmp_path / "named.jsonl", named)
    # Said again, it takes the place of the first.
    for _ in range(2):
        assert call(answers, out, "--pair", "--prover", "transformers, eager attention") == 0
    made = Thresholds.load(out)
    own = Thresholds.paper().bounds
    assert made.bounds == own
    [pair] = made.pairs
    assert (pair.prover.name, pair.prover.attention, pair.prover.device) == ("transformers", "eager", None)
    assert (pair.verifier.name, pair.verifier.attention) == ("transformers", "sdpa")
    assert "120 honest chunks of 100 answers by transformers, eager attention" in pair.provenance
    assert [entry.rows for entry in pair.bounds] == [1, 2, 4, 8, 32]
    assert pair.bounds[0].mantissa_mean < own[0].mantissa_mean
    verifier = TransformersVerifier(TransformersPrefill(MODEL), names=["mini"], thresholds=made)
    for path, bound in ((answers, pair.bounds[0].mantissa_mean), (honest, own[0].mantissa_mean)):
        report = verifier.verify(path.read_text("utf-8").splitlines()[0])
        [proofs] = [check for check in report.checks if check.name == "proofs"]
        assert proofs.status == "passed"
        assert proofs.figures["chunks"][0]["bounds"]["mantissa_mean"] == bound  # type: ignore[index, call-overload]
    # Calibrated anew, the model keeps its pairs.
    assert call(answers, out) == 0
    assert Thresholds.load(out).pairs == made.pairs


def test_what_cannot_be_used_is_named(honest: Path, tmp_path: Path) -> None:
    items = [json.loads(line) for line in honest.read_text("utf-8").splitlines()[:3]]
    out = tmp_path / "mini.yaml"
    with pytest.raises(ToplocError, match=r"20 are needed; there are 1 of 1 row, 1 of 2 to 3 rows, "):
        call(write(tmp_path / "few.jsonl", items), out)
    everything = [json.loads(line) for line in honest.read_text("utf-8").splitlines()]
    everything[2]["response"]["toploc_proofs"]["prompt"]["sha256"] = "0" * 64
    with pytest.raises(ToplocError, match=r"prompt\.jsonl:3: .*prompt"):
        call(write(tmp_path / "prompt.jsonl", everything), out)
    with pytest.raises(ToplocError, match=r"none\.jsonl: no such file"):
        call(tmp_path / "none.jsonl", out)
    with pytest.raises(ToplocError, match=r"ends in \.yaml"):
        call(honest, tmp_path / "mini.json")
    assert not out.exists()


def test_too_few_are_refused_before_a_model_is_loaded(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(honest.read_text("utf-8").splitlines()[:10]))
    with pytest.raises(ToplocError, match="20 are needed"):
        call(few, tmp_path / "mini.yaml")
    said = capsys.readouterr().err
    assert said.startswith("reading: 10 lines")
    assert "loading" not in said


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("/no/such/folder", "--model: /no/such/folder: no such folder"),
        ("./models/none", "--model: ./models/none: no such folder"),
        ("no-such-model-anywhere", "--model: no-such-model-anywhere is no folder here, and "),
        (str(Path(__file__).parent), "has no config.json"),
    ],
)
def test_a_model_that_is_none(honest: Path, tmp_path: Path, model: str, expected: str) -> None:
    with pytest.raises(ToplocError) as error:
        main([str(honest), "--model", model, "--name", "mini", "--out", str(tmp_path / "mini.yaml")])
    assert expected in str(error.value)


def test_the_bundled_thresholds_are_of_this_command() -> None:
    assert Thresholds.load("toploc-mini").provenance.startswith("toploc calibrate")
