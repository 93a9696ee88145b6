"""Thresholds from prefills and rows: benchmarks/evidence/prefills.py and thresholds.py."""

from __future__ import annotations

import json
import lzma
import pickle
import sys
from pathlib import Path

import by_channel
import numpy as np
import prefills
import pytest
import shipped
import thresholds
import yaml
from records import Records, Row

from toploc.calibration import impostors
from toploc.calibration.bounds import ROWS
from toploc.calibration.samples import Sample
from toploc.proofs.format import Proof, encode_points
from toploc.thresholds.bounds import Thresholds

ROOT = Path(__file__).parents[2]


def sample(answer: int, rows: int, off: int) -> Sample:
    """A chunk whose every point is so many steps off."""
    random = np.random.default_rng(100 * answer + rows)
    indices = random.choice(60_000, 128, replace=False).astype(np.int32)
    patterns = random.integers(0x3F80, 0x3FF0, 128).astype(np.uint16)
    proof = Proof(encode_points(indices, patterns))
    return Sample(answer, f"{answer} {rows}", rows, proof, indices, patterns + np.uint16(off))


def made(folder: Path, *options: str, whole: int = 1) -> Thresholds:
    """Of answers that are a step off, of so many whole chunks; rows of 512 tokens are two by one verifier, and three by
    the other."""
    with (folder / "kept").open("wb") as file:
        for answer in range(40):
            pickle.dump([sample(answer, rows, 1) for rows in (*ROWS[:-1], *[32] * whole)], file)
        file.write(pickle.dumps([sample(99, 1, 100)])[:-10])  # a kill cut it off
    records = Records(folder / "rows.jsonl")
    for verifier, mean in (("transformers, flash", 2.0), ("vLLM, prefill", 3.0)):
        chunk = [0, 0, mean, mean, 0, 1]
        records.add(Row("m", "honest", "p", verifier, [[chunk] * 16] * 40))
    records.add(
        Row(
            "m",
            "altered",
            "int8 weights",
            "transformers, flash",
            [[[0, 0, 6.0 + i % 3, 6, 0, 1]] * 16 for i in range(40)],
        )
    )
    argv = [str(records.path), "--model", "m", "--kept", str(folder / "kept"), "--said", "tried", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(impostors, "PAIRS", 20)
        patch.setattr(sys, "argv", ["thresholds.py", *argv, "--out", str(folder / "m.yaml")])
        thresholds.main()
    return Thresholds.load(folder / "m.yaml")


def test_whole_chunks_are_bounded_by_every_verifier(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert [bound.rows for bound in found.bounds] == list(ROWS)
    assert found.for_rows(1).mantissa_mean == 1.0
    assert found.for_rows(32).mantissa_mean >= 3.0
    # Of the prefills twenty answers of five chunks, of rows twenty of sixteen by either verifier.
    assert "Held out: 0 of 740 " in found.provenance
    assert "0 of 40 " in found.provenance
    assert found.impostor_rate == 0
    assert found.pooled is None


def test_what_is_known_is_not_narrowed(tmp_path: Path) -> None:
    known = {
        "name": "k",
        "dtype": "bfloat16",
        "topk": 128,
        "provenance": "tried",
        "bounds": [{"rows": 1, "mismatches": 30, "mantissa_mean": 2.5, "mantissa_median": 1.0}],
    }
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(known))
    found = made(tmp_path, "--known", str(tmp_path / "known.yaml"))
    assert (found.for_rows(1).mismatches, found.for_rows(1).mantissa_mean) == (30, 2.5)
    assert found.for_rows(32).mantissa_mean >= 3.0


def test_a_bound_on_answers_is_by_transformers_alone(tmp_path: Path) -> None:
    pooled = made(tmp_path, "--pooled", "int8 weights", "--pooled-said", "tried").pooled
    assert pooled is not None
    assert 0.0 < pooled.honest.mean < np.log(2.0)
    assert pooled.copies["int8 weights"].scores.mean == pytest.approx(np.log(7.0), abs=0.1)


def test_by_channel_prefills_are_taken(tmp_path: Path) -> None:
    """Of copies that are three steps off, where honest answers are a step."""
    with (tmp_path / "int8").open("wb") as file:
        for answer in range(40):
            pickle.dump([sample(answer, 32, 3)] * 2, file)
    options = ["--altered", f"int8 weights={tmp_path / 'int8'}", "--hidden-size", "4"]
    pooled = made(tmp_path, *options, "--pooled-said", "tried", whole=2).pooled
    assert pooled is not None
    assert pooled.noise is not None
    assert sorted(pooled.noise.channels) == [0, 1, 2, 3]
    # A step of bfloat16 between 1 and 2.
    assert pooled.noise.usual == pytest.approx(1 / 128, rel=0.01)
    assert pooled.honest.mean == pytest.approx(np.log(5), abs=0.01)
    assert pooled.copies["int8 weights"].scores.mean == pytest.approx(np.log(13), abs=0.01)


def test_both_errors_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, off in (("honest", 1), ("int8", 3)):
        with (tmp_path / name).open("wb") as file:
            for answer in range(40):
                pickle.dump([sample(answer, 32, off + answer % 4 // 2)] * (1 + answer % 5), file)
    argv = ["by_channel.py", "4", "--honest", str(tmp_path / "honest"), "--altered", f"int8={tmp_path / 'int8'}"]
    monkeypatch.setattr(sys, "argv", argv)
    by_channel.main()
    mean, channel = capsys.readouterr().out.split("By channel, 4 of 4 with noise of their own:")
    for part in (mean, channel):
        assert "| the model, held out | 0 of 20 (" in part
        assert "| int8 | 40 of 40 (" in part
        assert " | 16 of 16 (" in part  # of four chunks and more


def test_prefills_go_on_where_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.loads((ROOT / f"tests/toploc/evidence/{name}.json").read_text()) for name in ("greedy", "sampled")]
    path, kept = tmp_path / "evidence.jsonl", tmp_path / "kept"
    argv = ["prefills.py", str(path), "--model", str(ROOT / "models/toploc-mini"), "--name", "toploc-mini"]
    monkeypatch.setattr(sys, "argv", [*argv, "--kept", str(kept)])
    for count in (1, 2):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        prefills.main()
    found = list(prefills.kept(kept))
    assert [{one.answer for one in samples} for samples in found] == [{1}, {2}]
    assert all(one.passes(Thresholds.load("toploc-mini")) for samples in found for one in samples)


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma-3-270m-base"])
def test_what_documents_say_that_the_files_find(model: str, tmp_path: Path) -> None:
    results, rows = Path(thresholds.__file__).parent / "results", []
    for name in ("trained-rows", "engines-rows"):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(lzma.decompress((results / f"{name}.jsonl.xz").read_bytes()))
        rows += [row for row in Records(path) if row.model == model]
    found: dict[tuple[str, str], list[str]] = {}
    for line in shipped.table(rows, Thresholds.load(ROOT / f"configs/thresholds/{model}.yaml")).splitlines()[2:]:
        library, name, *cells = line.strip("| ").split(" | ")
        found[library, name] = [cell.split()[0] for cell in cells]
        if name == shipped.HONEST:
            assert all(int(cell.split()[0]) <= 2 for cell in cells)
    evidence = (ROOT / "docs/evidence.md").read_text("utf-8")
    for name, shown in {"int8 weights": "int8 weights, of 256"}.items() | {
        (name, name) for name in ("fp8 KV cache", "weights rounded to fp8")
    }:
        pairs = zip(found["transformers", name], found["vLLM", name], strict=True)
        assert f"| {shown} | {' | '.join(f'{a} / {b}' for a, b in pairs)} |" in evidence
