"""Thresholds: the paper's, and every value that is refused, by the field it is in."""

import math
from dataclasses import asdict, replace

import pytest
import yaml

from toploc import InvalidThresholds, Thresholds
from toploc.thresholds.bounds import Bounds

PAPER = Thresholds.paper()


def test_paper():
    assert PAPER.bounds == (Bounds(rows=1, mismatches=38, mantissa_mean=10, mantissa_median=8),)
    assert (PAPER.dtype, PAPER.topk, PAPER.model) == ("bfloat16", 128, None)
    half = Thresholds.paper("float16")
    assert (half.bounds[0].mantissa_mean, half.bounds[0].mantissa_median) == (80, 64)
    with pytest.raises(InvalidThresholds, match="dtype"):
        Thresholds.paper("float32")


def test_load(tmp_path):
    calibrated = replace(
        PAPER,
        name="tiny",
        model="tiny",
        impostor_rate=0.25,
        bounds=(Bounds(1, 20, 3.5, 2, 12), Bounds(32, 16, 4, 3)),
    )
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**asdict(calibrated), "bounds": [asdict(b) for b in calibrated.bounds]}))
    assert Thresholds.load(path) == Thresholds.load(str(path)) == calibrated
    assert Thresholds.from_dict(asdict(calibrated)) == calibrated
    assert Thresholds.load("paper-bfloat16") == PAPER


def test_for_rows():
    thresholds = replace(PAPER, bounds=(Bounds(1, 5, 1, 1), Bounds(8, 4, 1, 1), Bounds(32, 3, 1, 1)))
    reached = [thresholds.for_rows(rows).rows for rows in (0, 1, 7, 8, 31, 32, 1000)]
    assert reached == [1, 1, 1, 8, 8, 32, 32]


BOUNDS = {"rows": 1, "mismatches": 38, "mantissa_mean": 10, "mantissa_median": 8}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(name, value) for name in BOUNDS for value in (math.nan, -1, "38", None, True, [])],
        *[(name, 1.5) for name in ("rows", "mismatches", "decoy_hits")],
        *[(name, math.inf) for name in ("mantissa_mean", "mantissa_median")],
        ("rows", 0),
        ("mismatches", 129),
        ("decoy_hits", -1),
    ],
)
def test_bounds_out_of_range(field, value):
    values = {"name": "x", "dtype": "bfloat16", "topk": 128, "provenance": "a test"}
    with pytest.raises(InvalidThresholds, match=field):
        Thresholds.from_dict({**values, "bounds": [{**BOUNDS, field: value}]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("provenance", " "),
        ("provenance", None),
        ("dtype", "float32"),
        ("dtype", []),
        ("topk", 0),
        ("topk", 128.0),
        ("model", ""),
        ("impostor_rate", 1.1),
        ("impostor_rate", math.nan),
        ("bounds", []),
        ("bounds", None),
        ("bounds", [BOUNDS, BOUNDS]),
        ("bounds", [{**BOUNDS, "rows": 2}]),
        ("intersections", 90),
    ],
)
def test_fields_out_of_range(field, value):
    values = {"name": "x", "dtype": "bfloat16", "topk": 128, "provenance": "a test", "bounds": [BOUNDS]}
    with pytest.raises(InvalidThresholds, match=field):
        Thresholds.from_dict({**values, field: value})


SCORES = {"mean": -0.6, "between": 0.1, "within": 0.25}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooled.honest", None),
        ("pooled.honest.between", {**SCORES, "between": -1}),
        ("pooled.honest.within", {**SCORES, "within": 0}),
        ("pooled.honest.mean", {**SCORES, "mean": math.nan}),
        ("pooled.bound", -1),
        ("pooled.bound", math.inf),
        ("pooled.provenance", ""),
        ("pooled.copies.fp8.threshold", {"fp8": {"scores": SCORES, "threshold": 0}}),
        ("pooled.copies.fp8.scores", {"fp8": {"threshold": 9}}),
        ("pooled.copy", {}),
    ],
)
def test_pooled_bounds_out_of_range(field, value):
    values = {"name": "x", "dtype": "bfloat16", "topk": 128, "provenance": "a test", "bounds": [BOUNDS]}
    pooled = {"honest": SCORES, "provenance": "a test", "bound": 4.5, "copies": {}}
    parsed = Thresholds.from_dict({**values, "pooled": pooled})
    assert Thresholds.from_dict(asdict(parsed)) == parsed
    with pytest.raises(InvalidThresholds, match=field.replace(".", r"\.")):
        Thresholds.from_dict({**values, "pooled": {**pooled, field.split(".")[1]: value}})


def test_missing_and_unknown_keys():
    with pytest.raises(InvalidThresholds, match="provenance: missing"):
        Thresholds.from_dict({"name": "x", "dtype": "bfloat16", "topk": 128, "bounds": [BOUNDS]})
    with pytest.raises(InvalidThresholds, match="exp: unknown"):
        Thresholds.from_dict({**asdict(PAPER), "bounds": [{**BOUNDS, "exp": 1}]})


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"a: [", b"\xff\xfe\x00", b"!!python/object:os.system {}", b"[" * 5000]
)
def test_files_that_are_not_thresholds(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidThresholds):
        Thresholds.load(path)


@pytest.mark.parametrize("name", ["none-such", "none-such.yaml", "a\0b", "../thresholds"])
def test_files_that_are_not_there(name):
    with pytest.raises(InvalidThresholds):
        Thresholds.load(name)
