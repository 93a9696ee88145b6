"""What several verifiers say of one answer, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict

from toploc.report import Check, Report, ReportVerdict, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

Rule = Literal["all", "any", "majority"]
"""How many verifiers have to accept; one that gave no report is none that does."""


class Opinion(BaseModel):
    """One verifier's report, or the problem that kept it from one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verifier: str
    report: Report | None = None
    problem: str | None = None


class Judgement(Report):
    """A report with the verdict of several verifiers; `checks` are those of the first that came to it.

    `open`: too few answered, so the verdict is `undecided` and may still be `accepted` once the others do.
    """

    rule: Rule = "all"
    open: bool = False
    opinions: tuple[Opinion, ...] = ()

    @classmethod
    def by(cls, rule: Rule, opinions: Sequence[Opinion], receipts: Sequence[Check] = ()) -> Self:
        """The verdict of opinions, and of the checks of receipts that this client did itself; at least one of either.

        1. rejected, if a receipt did not pass.
        2. accepted, if as many verifiers accept as the rule asks for: all, one, or more than half.
        3. undecided and open, if they still could: some could not be asked.
        4. rejected, if one rejects; else undecided: they cannot tell.
        """
        accepted = sum(o.report is not None and o.report.accepted for o in opinions)
        silent = sum(o.report is None for o in opinions)
        needed = min(len(opinions), {"all": len(opinions), "any": 1, "majority": len(opinions) // 2 + 1}[rule])
        rejected = any(o.report is not None and o.report.verdict == "rejected" for o in opinions)
        verdict: ReportVerdict = "undecided"
        is_open = False
        if any(check.status != "passed" for check in receipts):  # 1
            verdict = "rejected"
        elif accepted >= needed:  # 2
            verdict = "accepted"
        elif accepted + silent >= needed:  # 3
            is_open = True
        elif rejected:  # 4
            verdict = "rejected"
        reports = [o.report for o in opinions if o.report is not None]
        chosen = next((report for report in reports if report.verdict == verdict), reports[0] if reports else None)
        checks = chosen.checks if chosen else tuple(_unavailable(opinion) for opinion in opinions)
        return cls(
            verdict=verdict,
            model=chosen.model if chosen else None,
            checks=(*receipts, *checks),
            rule=rule,
            open=is_open,
            opinions=tuple(opinions),
        )

    def __str__(self) -> str:
        text = super().__str__()
        if len(self.opinions) < 2:
            return text
        said = [f"  {o.verifier}: {o.report.verdict if o.report else o.problem}" for o in self.opinions]
        return "\n".join([text, f"  verifiers ({self.rule}):", *(f"  {printable(line)}" for line in said)])


def _unavailable(opinion: Opinion) -> Check:
    return Check(name="evidence", status="undecided", reason="unavailable", message=opinion.problem or "no report")
