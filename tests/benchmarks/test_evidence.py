"""The study of benchmarks/evidence in a small form: the bundled model, transformers as prover, no engine."""

from __future__ import annotations

import argparse
import lzma
import shutil
from pathlib import Path

import engines
import measure
import numpy as np
import pytest
import separation
import tables
import torch
from jobs import Job
from kinds import altered_kinds, copied_kinds, honest_kinds
from records import Records, Row
from run import Run
from study import Study
from transformers import LlamaConfig, LlamaForCausalLM

from toploc.thresholds.bounds import Thresholds

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "toploc-mini"
HONEST, INT4 = "transformers, decoding with a cache", "int4 weights"
SYSTEM, OTHER = "another system prompt", "another seed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, and beside it another of its architecture."""
    path = tmp_path_factory.mktemp("study") / "mini"
    shutil.copytree(MODEL, path)
    torch.manual_seed(0)
    other = LlamaForCausalLM(LlamaConfig.from_pretrained(MODEL)).to(torch.bfloat16)
    other.save_pretrained(path / "other")
    shutil.copy(MODEL / "tokenizer.json", path / "other")
    shutil.copy(MODEL / "tokenizer_config.json", path / "other")
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    options = ["--engine", "transformers", "--device", "cpu", "--answers", "4", "--tokens", "64", "--fast"]
    args = measure.parser().parse_args([str(folder), *options, "--output", str(folder.parent / "rows.jsonl")])
    kinds = [*honest_kinds("transformers"), *altered_kinds("transformers", folder)]
    kinds += copied_kinds("transformers", folder, "cpu")
    wanted = (HONEST, INT4, SYSTEM, OTHER)
    for _ in range(2):  # the second time nothing is left to do
        engine = engines.load(args.engine, args.folder, args.device, args.kv_gb)
        Study(args, engine).run([kind for kind in kinds if kind.name in wanted])
    return list(Records(args.output))


def rejected(row: Row) -> list[bool]:
    """Of each answer, whether the calibrated bounds reject it."""
    bounds, sample = Thresholds.load("toploc-mini").for_rows(32), separation.Sample.of([row.chunks])
    names = ("mismatches", "mantissa_mean", "mantissa_median")
    beyond = [sample[name] > getattr(bounds, name) for name in names]
    return np.any(beyond, axis=(0, 2)).tolist()


def test_honest_answers_pass_and_altered_ones_do_not(rows: list[Row]) -> None:
    assert [(row.prover, row.verifier[14:]) for row in rows] == [
        (HONEST, "sdpa"),
        (HONEST, "eager"),
        (INT4, "sdpa"),
        (SYSTEM, "sdpa"),
        (OTHER, "sdpa"),
    ]
    assert {tuple(len(answer) for answer in row.chunks) for row in rows} == {(2, 2, 2, 2)}
    counts = [sum(rejected(row)) for row in rows]
    assert counts[:3] == [0, 0, 4]
    # Below a long question another system prompt hardly shows; the prompt's digest has it all the same.
    assert counts[3] >= 2
    assert counts[4] == 4


def test_tables_and_plots(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    text = tables.write(folder.parent / "rows.jsonl", tmp_path)
    assert "| int4 weights | transformers, sdpa |" in text
    assert "0 of 8 (0 % to 36.9 %)" in text
    assert {file.name for file in tmp_path.iterdir()} == {"evidence.md", "detection.png", "detection.svg"}


def test_published_tables_by_calibrated_bounds_are_of_the_published_rows(tmp_path: Path) -> None:
    results = Path(tables.__file__).parent / "results"
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lzma.decompress((results / "rows.jsonl.xz").read_bytes()))
    published = (results / "evidence.md").read_text("utf-8")
    for model, rows in tables.by_model(Records(path)).items():
        table = tables.calibrated_table(rows, tables.honest_by_verifier(rows))
        chunks = "576" if "Llama" in model else "2,136"
        assert f"| honest, held out | vLLM, prefill | 0 of {chunks}" in table
        assert table in published


def test_a_torn_row_is_left_out(tmp_path: Path) -> None:
    records = Records(tmp_path / "rows.jsonl")
    records.add(Row("m", "honest", "p", "v", [[[1.0]]]))
    records.path.write_text(records.path.read_text() + '{"model": "m"')
    assert records.done() == {("m", "p", "v")}


def test_area_and_chunks_of_normal_samples() -> None:
    """Two normal variables a deviation apart: the area is Φ(1/√2); 1 % of errors need (2 x 2.326)^2 = 21.6 of them."""
    rng = np.random.default_rng(1)
    low, high = rng.normal(0, 1, (2000, 4)), rng.normal(1, 1, (2000, 4))
    assert separation.area(low, high) == pytest.approx(0.760, abs=0.01)
    assert separation.chunks_needed(low, high) == pytest.approx(22, abs=2)
    assert separation.chunks_needed(low, low) is None
    assert separation.chunks_needed(low, low + 100) == 1


def test_a_run_ends_in_time_with_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import sys, time\nprint('began', flush=True)\ntime.sleep(float(sys.argv[1]))\n")
    args = argparse.Namespace(
        out=tmp_path / "out", work=None, seconds=82, train_seconds=1, memory=10, jobs=3, models=[]
    )
    run = Run(args)
    listed = [
        Job("first", [str(script), "0"], 6),
        Job("second", [str(script), "0"], 6, ("first",)),
        Job("too long", [str(script), "500"], 4),
        Job("too large", [str(script), "0"], 20),
        Job("broken", [str(tmp_path / "missing.py")], 1),
    ]
    run.loop(listed)
    assert all(job.over for job in listed)
    assert [job.name for job in listed if job.stopped] == ["too long"]
    assert [job.process and job.process.returncode for job in listed] == [0, 0, -15, None, 2]
    run.write()
    assert (args.out / "evidence.md").exists()


def test_halves_have_the_same_kinds_of_questions() -> None:
    """Every second question has a passage before it, and every fourth is greedy: what is fitted to one half is measured
    on the other, and must not meet other prompts there."""
    width = len(separation.NAMES) + 1
    row = [[[float(place)] * width] * 8 for place in range(96)]
    sample = separation.Sample.of([row, row[:7]])
    for which in (0, 1):
        numbers = sample.half(which).places
        assert {int((numbers[:48] % 4 == kind).sum()) for kind in range(4)} == {12}
    assert len(sample.half(0).figures) + len(sample.half(1).figures) == 103
