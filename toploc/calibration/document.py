"""What a calibration writes: the file of a model, or the bounds of a pair of engines in one that is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..engine import Facts
from ..errors import ToplocError
from ..thresholds.bounds import Thresholds
from .bounds import ROWS, group, refused_answers, refused_chunks
from .impostors import impostors
from .samples import engine_of
from .step import no_finer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine import Engine
    from ..thresholds.chunk import Bounds
    from .rate import Rate
    from .samples import Sample

    Tried = Mapping[int, tuple[Rate, Mapping[str, Rate]]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bounds that the answers of even number gave, to be tried on the others.

    `target`: the rate of false alarms that they are for, at this `confidence`. `prover`, `verifier`: in words.
    """

    honest: Sequence[Sample]
    bounds: Sequence[Bounds]
    target: float
    confidence: float
    prover: str
    verifier: str

    @property
    def fitted(self) -> list[Sample]:
        return [sample for sample in self.honest if sample.answer % 2 == 0]

    @property
    def counted(self) -> list[Sample]:
        return [sample for sample in self.honest if sample.answer % 2]

    def try_out(self, thresholds: Thresholds) -> Tried:
        """Of each chunk length: false alarms, and the impostors that pass, by kind."""
        found = {}
        for rows in ROWS:
            chosen = [sample for sample in self.counted if group(sample.rows) == rows]
            impostor = impostors(chosen, thresholds, self.confidence)
            found[rows] = refused_chunks(chosen, thresholds, self.confidence), impostor
        return found

    def of_model(self, name: str, model: str, paper: Thresholds, known: Thresholds | None) -> dict[str, Any]:
        """The model's file. Of the one that is there, `known`, what comes from elsewhere is kept: what it has for
        tokens, but for bounds finer than a step of the logits, and pairs of engines, which only tighten."""
        document: dict[str, Any] = {
            "name": name,
            "dtype": paper.dtype,
            "topk": paper.topk,
            "model": model,
            "provenance": "being calibrated",
            "bounds": self.listed,
        }
        tried = Thresholds.from_dict(document)
        worst = worst_of(self.try_out(tried))
        document["provenance"] = self._provenance(tried, worst)
        if known is not None and known.tokens is not None:
            logit = max(sample.logit for sample in self.honest)
            document["tokens"] = no_finer(known.tokens, logit, paper.dtype).model_dump()
        document["impostor_rate"] = round(worst, 4)
        if known is not None and known.pairs:
            document["pairs"] = [_pair(asdict(pair)) for pair in known.pairs]
        return document

    def with_pair(self, document: Mapping[str, Any], verifier: Engine) -> dict[str, Any]:
        """A model's file with the bounds of the engine that made the answers and of this verifier, in place of those
        that it has of the two. Raises ToplocError where the answers do not say which engine made them."""
        prover = engine_of(self.honest)
        if not prover.model_fields_set:
            raise ToplocError("--pair: the honest answers do not say which engine made them")
        facts = Facts(**{name: getattr(verifier, name) for name in Facts.model_fields})
        sides = {"prover": prover.model_dump(), "verifier": facts.model_dump()}
        tried = Thresholds.from_dict({**document, "bounds": self.listed, "pairs": []})
        entry = {
            **sides,
            "provenance": self._provenance(tried, worst_of(self.try_out(tried))),
            "bounds": self.listed,
        }
        others = [pair for pair in document.get("pairs", ()) if any(pair[side] != sides[side] for side in sides)]
        return {**document, "pairs": [*others, entry]}

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The bounds, as a file has them."""
        return [{name: value for name, value in asdict(entry).items() if value is not None} for entry in self.bounds]

    def _provenance(self, thresholds: Thresholds, worst: float) -> str:
        answers = len({sample.answer for sample in self.fitted})
        chunks = refused_chunks(self.counted, thresholds, self.confidence)
        return (
            f"toploc calibrate, {datetime.now(UTC):%Y-%m-%d}: {len(self.fitted):,} honest chunks of {answers:,} "
            f"answers by {self.prover}; verifier {self.verifier}. For {self.target:g} false alarms a chunk at "
            f"{self.confidence:.0%} confidence, by an exponential tail of each figure. Held out: {chunks} chunks and "
            f"{refused_answers(self.counted, thresholds, self.confidence)} answers refused; of proofs made without the "
            f"computation at most {worst:.2%} accepted"
        )


def worst_of(tried: Tried) -> float:
    """The largest share of impostors of one kind that pass at some length."""
    return max(rate.share for _, found in tried.values() for rate in found.values())


def _pair(values: dict[str, Any]) -> dict[str, Any]:
    """As a file has it."""
    sides = {side: values[side].model_dump() for side in ("prover", "verifier")}
    bounds = [{name: value for name, value in entry.items() if value is not None} for entry in values["bounds"]]
    return {**sides, "provenance": values["provenance"], "bounds": bounds}
