"""Other statistics of an answer's points (benchmarks/evidence/pointwise.py), whose channels differ in noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pointwise
import pytest

from toploc.proofs.format import encode_points

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = 64
ANSWERS = 64


def save(path: Path, seed: int, quiet: float) -> None:
    """Points claimed with an error of 12 steps in half of the channels, and of `quiet` in the others."""
    random = np.random.default_rng(seed)
    size = (ANSWERS, 4, 128)
    indices = np.array([random.choice(32 * HIDDEN, 128, replace=False) for _ in range(ANSWERS * 4)]).reshape(size)
    own = random.integers(0x3FC0, 0x3FE0, size)
    scale = np.where(indices % HIDDEN < HIDDEN // 2, 12.0, quiet)
    claimed = (own + np.rint(random.normal(0, scale)).astype(int)).astype(np.uint16)
    proofs = [
        encode_points(i.astype(np.int32), c)
        for i, c in zip(indices.reshape(-1, 128), claimed.reshape(-1, 128), strict=True)
    ]
    data = np.frombuffer(b"".join(proofs), np.uint8).reshape(*size[:2], -1)
    np.savez(path, proofs=data, indices=indices.astype(np.int32), patterns=own.astype(np.uint16))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> pointwise.Study:
    """The copy errs more where the model hardly does."""
    folder = tmp_path_factory.mktemp("points")
    save(folder / "m-CUDA-graphs-transformers-sdpa.npz", 0, 1.0)
    save(folder / "m-int8-weights-transformers-sdpa.npz", 1, 2.5)
    save(folder / "m-int4-weights-transformers-sdpa.npz", 2, 4.0)
    return pointwise.load(folder, HIDDEN, 4)["transformers"]


def test_points_are_read_as_they_were_proven(study: pointwise.Study) -> None:
    assert list(study.altered) == ["m-int4-weights", "m-int8-weights"]
    assert len(study.fitted.off) == len(study.held.off) == ANSWERS // 2
    quiet = study.held.channel >= HIDDEN // 2
    assert study.held.off[quiet].std() == pytest.approx(1.0, abs=0.1)
    assert study.held.off[~quiet].std() == pytest.approx(12.0, rel=0.1)


def test_errors_by_channel_find_what_the_mean_hides(study: pointwise.Study) -> None:
    statistics, copy = study.noise.statistics(), study.altered["m-int8-weights"]
    assert study.found(statistics["mean error (as shipped)"], copy).share < 0.5
    by_channel = statistics["logarithms by channel"]
    assert study.found(by_channel, copy).share > 0.9
    assert study.found(by_channel, study.held).count <= 1


def test_a_likelihood_ratio_knows_only_other_alterations(study: pointwise.Study) -> None:
    table = study.table([study])
    [line] = [line for line in table.splitlines() if line.startswith("| likelihood ratio, other alterations")]
    held, int4, int8 = (int(cell.split()[0]) for cell in line.strip(" |").split(" | ")[1:])
    assert held <= 2
    assert int4 == ANSWERS
    assert int8 > ANSWERS // 2
