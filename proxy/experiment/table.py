"""Reports of an experiment as lines and as a table."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from toploc.errors import ToplocError
from toploc.scheme import TOPK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from toploc.report import Report


def line(report: Report) -> str:
    """An answer's verdict in the original's words: its worst figures, each beside its bound.

    `exp intersections` is what is left of the 128 points without the mismatches, which count wrong signs too.
    """
    status = {"accepted": "PASSED", "rejected": "FAILED", "undecided": "UNDECIDED"}[report.verdict]
    chunks = _chunks(report)
    against = [check for check in report.checks if check.status in ("failed", "undecided")]
    others = [f"{check.name}: {check.message}" for check in against if check.name != "proofs"]
    proofs = next((check for check in report.checks if check.name == "proofs"), None)
    if proofs is None or not chunks or (proofs.status == "passed" and others) or proofs.status == "undecided":
        said = [f"proofs: {proofs.message}"] if proofs is not None and proofs.status != "passed" else []
        return f"VERIFICATION {status}: {'; '.join([*said, *others])}"
    mean, mean_bound = _worst(chunks, "mantissa_mean")
    median, median_bound = _worst(chunks, "mantissa_median")
    mismatches, most = _worst(chunks, "mismatches")
    hits, hits_bound = _worst(chunks, "decoy_hits")
    failed = proofs.status == "failed"
    beyond, joined, few = ("above", "or", "below") if failed else ("below", "and", "above")
    text = (
        f"VERIFICATION {status}: Mantissa error mean: {mean:.6g} {beyond} {mean_bound:g} {joined} "
        f"median: {median:g} {beyond} {median_bound:g} {joined} "
        f"exp intersections: {TOPK - mismatches:g} {few} {TOPK - most:g}"
    )
    if failed and hits > hits_bound:
        text += f" or decoy hits: {hits:g} above {hits_bound:g}"
    return "; ".join([text, *others])


def _chunks(report: Report) -> list[dict[str, Any]]:
    found = [check.figures.get("chunks") for check in report.checks if check.name == "proofs"]
    return [dict(chunk) for chunk in (found[0] if found else None) or ()]  # type: ignore[union-attr, arg-type]


def _worst(chunks: Sequence[Mapping[str, Any]], figure: str) -> tuple[float, float]:
    """The figure of the chunk that is nearest to its bound or furthest beyond, and the bound."""
    worst = max(chunks, key=lambda chunk: chunk[figure] - chunk["bounds"][figure])
    return worst[figure], worst["bounds"][figure]


def require_pyarrow(target: Path) -> None:
    """Raises ToplocError where it is not installed, before the work is done."""
    if find_spec("pyarrow") is None:
        raise ToplocError(f"{target}: Parquet needs the package pyarrow; pip install 'toploc-proxy[experiments]'")


def write_table(target: Path, args: argparse.Namespace, reports: Mapping[int, Report]) -> None:
    """One row a chunk: all figures are errors, lower is better."""
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rows = [
        {
            "sample": sample,
            "chunk": number,
            "verdict": report.verdict,
            "passed": chunk["passed"],
            **{name: float(chunk[name]) for name in ("mantissa_mean", "mantissa_median")},
            **{name: int(chunk[name]) for name in ("mismatches", "exponent_mismatches", "decoy_hits")},
            **{f"{name}_bound": float(bound) for name, bound in chunk["bounds"].items()},
            "decode_model": args.decode_model_name,
            "validate_model": args.validate_model_name,
        }
        for sample, report in reports.items()
        for number, chunk in enumerate(_chunks(report))
    ]
    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    except OSError as error:
        raise ToplocError(f"{target}: {error.strerror or error}") from None
