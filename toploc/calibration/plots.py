"""Pictures of a calibration: how many chunks exceed a figure, by chunk length, beside the bound. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ToplocError
from .bounds import FIGURES, group, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..thresholds.bounds import Thresholds
    from .samples import Sample

FORMATS: Final = ("png", "svg")
"""Endings of the files of each picture."""


def draw(folder: Path, samples: Mapping[str, Sequence[Sample]], thresholds: Thresholds) -> list[Path]:
    """Writes `rows-N.png` and `.svg` for every chunk length: the share of chunks at or above each figure, by writer.

    Raises ToplocError where the folder cannot be written.
    """
    # Figure in place of pyplot: no display, no state of the process.
    from matplotlib.figure import Figure

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in thresholds.bounds:
            figure = Figure(figsize=(11, 3.6), layout="constrained")
            for axes, name in zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True):
                for writer, chunks in samples.items():
                    verdicts = [s.judge(s.proof, thresholds) for s in chunks if group(s.rows) == entry.rows]
                    values = sorted(getattr(verdict, name) for verdict in verdicts)
                    shares = [1 - i / len(values) for i in range(len(values))]
                    axes.step(values, shares, where="pre", label=f"{writer} ({len(values):,})")
                axes.axvline(getattr(entry, name), color="black", linestyle=":", label="bound")
                axes.set(xlabel=name.replace("_", " "), yscale="log", xscale="symlog")
                axes.set_xlim(left=0)
            figure.axes[0].set_ylabel("share of chunks at or above")
            figure.axes[-1].legend(fontsize="x-small")
            figure.suptitle(f"{thresholds.name}: chunks of {span(entry.rows)}")
            for ending in FORMATS:
                path = folder / f"rows-{entry.rows}.{ending}"
                figure.savefig(path)
                written.append(path)
    except OSError as error:
        raise ToplocError(f"{folder}: {error.strerror}") from None
    return written
