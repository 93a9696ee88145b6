"""What an audit tells of answers that were held to their text alone, of which none is ever accepted."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING, Any

from toploc.page.figures import counted
from toploc.report import UNPROVEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .entry import Entry


class Unproven:
    """Takes entries one by one; those with proofs say nothing here.

    `weak`: answers that were looked at and show nothing. `sources`: by what the tokens of how many choices are known,
    and of how many they are not. `matched`, of `greedy`: tokens of greedy answers that are the verifier's own choice.
    """

    def __init__(self) -> None:
        self.answers = self.weak = self.matched = self.greedy = 0
        self.sources: Counter[str] = Counter()
        self.errors: list[float] = []
        """The mean distance of reported log-probabilities, by choice."""

    def add(self, entry: Entry) -> None:
        checks = entry.report.checks
        if not any(check.name == "proofs" and check.reason == UNPROVEN for check in checks):
            return
        self.answers += 1
        self.weak += entry.report.weak
        for check in checks:
            figures = check.figures
            if check.name == "tokens":
                self.sources[str(figures.get("source", "unknown"))[:20]] += 1
                matched, tokens = figures.get("matched"), figures.get("tokens")
                if isinstance(matched, int) and isinstance(tokens, int):
                    self.matched, self.greedy = self.matched + matched, self.greedy + tokens
            error = figures.get("error") if check.name == "response" else None
            if isinstance(error, int | float):
                self.errors.append(float(error))

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.answers:
            return
        known = self.sources.total() - self.sources["unknown"]
        named = ", ".join(f"{count:,} by {source}" for source, count in self.sources.items() if source != "unknown")
        yield (
            f"without proofs: {self.weak:,} of {counted(self.answers, 'answer')} show nothing, which proves nothing; "
            f"the tokens of {known:,} of {self.sources.total():,} are known{named and f' ({named})'}"
        )
        if self.greedy:
            share = f"{self.matched / self.greedy:.2%} of {counted(self.greedy, 'token')}"
            yield f"greedy answers: {share} are the verifier's own choice"
        if self.errors:
            yield f"reported log-probabilities: {fmean(self.errors):.3g} off on average, {max(self.errors):.3g} at most"

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "weak": self.weak,
            "tokens_known": {**self.sources},
            "greedy": {"tokens": self.greedy, "matched": self.matched},
            "logprobs": {"answers": len(self.errors), "error": fmean(self.errors) if self.errors else None},
        }
