"""Bounds for pairs of engines: whatever a prover says, none is above the model's own."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toploc.engine import Engine, Facts
from toploc.errors import InvalidThresholds
from toploc.thresholds.bounds import Bounds, Pair, Thresholds

PAPER = Thresholds.paper()
VLLM, HF = Engine.of("vllm", "0.32.0", execution="eager"), Engine.of("transformers", "5", device="cpu")
TIGHT = Pair(Facts(name="vllm"), Facts(name="transformers"), (Bounds(1, 9, 3, 2), Bounds(32, 5, 4, 1)), "measured")
# Few words, so that facts and engines often agree.
WORDS = st.sampled_from(["vllm", "eager", "cpu", "x"])
KNOWN = st.builds(Engine, name=WORDS, version=WORDS, execution=st.none() | WORDS, device=st.none() | WORDS)
ENGINES = st.none() | KNOWN
FACTS = st.dictionaries(st.sampled_from(["name", "version", "execution", "device"]), st.none() | WORDS).map(
    Facts.model_validate
)


@st.composite
def bounds(draw: st.DrawFn, *, decoys: bool = False) -> tuple[Bounds, ...]:
    rows = [1, *sorted(draw(st.sets(st.integers(2, 32), max_size=3)))]
    figure, hits = st.floats(0, 20), st.none() | st.integers(0, 20) if decoys else st.none()
    return tuple(Bounds(at, draw(st.integers(0, 128)), draw(figure), draw(figure), draw(hits)) for at in rows)


PAIRS = st.lists(st.builds(Pair, FACTS, FACTS, bounds(), st.just("a test")), max_size=4).map(tuple)


@given(bounds(decoys=True), PAIRS, ENGINES, ENGINES)
def test_no_engine_loosens_a_bound(
    own: tuple[Bounds, ...], pairs: tuple[Pair, ...], prover: Engine | None, verifier: Engine | None
) -> None:
    thresholds = replace(PAPER, bounds=own, pairs=pairs)
    found = thresholds.for_pair(prover, verifier)
    for rows in range(1, 34):
        effective, model = found.for_rows(rows), thresholds.for_rows(rows)
        assert effective.mismatches <= model.mismatches
        assert effective.mantissa_mean <= model.mantissa_mean
        assert effective.mantissa_median <= model.mantissa_median
        assert effective.decoy_hits == model.decoy_hits
        for pair in pairs:
            if pair.applies(prover, verifier):
                assert effective.mismatches <= replace(PAPER, bounds=pair.bounds).for_rows(rows).mismatches
    rest = {"bounds": (), "provenance": "", "pairs": ()}
    assert asdict(found) | rest == asdict(thresholds) | rest


def test_the_smaller_of_each_figure_at_each_length() -> None:
    own = replace(PAPER, bounds=(Bounds(1, 8, 4, 1), Bounds(8, 20, 2, 3, 7)), pairs=(TIGHT,))
    found = own.for_pair(VLLM, HF)
    assert found.bounds == (Bounds(1, 8, 3, 1), Bounds(8, 9, 2, 2, 7), Bounds(32, 5, 2, 1, 7))
    assert found.provenance.endswith("; of this pair of engines: measured")


def test_other_engines_have_the_models_own() -> None:
    own = replace(PAPER, pairs=(TIGHT,))
    for prover, verifier in ((None, HF), (VLLM, None), (HF, VLLM), (None, None)):
        assert own.for_pair(prover, verifier) is own


def test_files(tmp_path: Any) -> None:
    own = replace(PAPER, pairs=(TIGHT, replace(TIGHT, prover=Facts(quantization=None))))
    assert Thresholds.from_dict(asdict(own)) == own
    path = tmp_path / "x.yaml"
    pair = {"prover": {"name": "vllm"}, "verifier": {"name": "transformers"}, "provenance": "measured"}
    pair |= {"bounds": [{k: v for k, v in asdict(b).items() if v is not None} for b in TIGHT.bounds]}
    plain = {k: v for k, v in asdict(PAPER).items() if v is not None} | {"bounds": [asdict(b) for b in PAPER.bounds]}
    path.write_text(yaml.safe_dump({**plain, "pairs": [pair]}))
    assert Thresholds.load(path) == replace(PAPER, pairs=(TIGHT,))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prover": {"nome": "vllm"}}, r"pairs\.prover\.nome"),
        ({"verifier": {"name": "a\nb"}}, r"pairs\.verifier\.name"),
        ({"bounds": []}, r"pairs\.bounds"),
        ({"bounds": [{"rows": 2, "mismatches": 1, "mantissa_mean": 1, "mantissa_median": 1}]}, r"pairs\.bounds"),
        (
            {"bounds": [{"rows": 1, "mismatches": 1, "mantissa_mean": 1, "mantissa_median": 1, "decoy_hits": 9}]},
            "decoy",
        ),
        ({"provenance": ""}, r"pairs\.provenance"),
        ({"of": 1}, "of: unknown"),
    ],
)
def test_pairs_that_are_none(changes: dict[str, Any], named: str) -> None:
    values = {**asdict(PAPER), "bounds": [asdict(b) for b in PAPER.bounds]}
    pair = {"prover": {}, "verifier": {}, "bounds": [asdict(PAPER.bounds[0])], "provenance": "a test"}
    Thresholds.from_dict({**values, "pairs": [pair]})
    with pytest.raises(InvalidThresholds, match=named):
        Thresholds.from_dict({**values, "pairs": [{**pair, **changes}]})
    with pytest.raises(InvalidThresholds, match="pairs: expected a list"):
        Thresholds.from_dict({**values, "pairs": {}})
