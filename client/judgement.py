"""What several verifiers say of one answer, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict

from toploc.foreign import printable
from toploc.report import Check, Report, ReportVerdict, coverage_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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
    def by(
        cls,
        rule: Rule,
        opinions: Sequence[Opinion],
        own: Sequence[Check] = (),
        *,
        unproven: Collection[int] = (),
    ) -> Self:
        """The verdict of opinions, and of the checks that this client did itself; at least one of either.

        1. rejected, if one of those failed, or if a receipt did not pass.
        2. accepted, if as many verifiers accept as the rule asks for: all, one, or more than half. But undecided, if
           one of the client's own checks is.
        3. undecided and open, if they still could: some could not be asked.
        4. rejected, if one rejects; else undecided: they cannot tell.

        `unproven`: choices of which the server says that it could not prove them; the verdict is on the others.
        """
        said = [o.report and _without(o.report, unproven) for o in opinions]
        accepted = sum(report is not None and report.accepted for report in said)
        needed = min(len(opinions), {"all": len(opinions), "any": 1, "majority": len(opinions) // 2 + 1}[rule])
        verdict: ReportVerdict = "undecided"
        is_open = False
        if any(c.status == "failed" or (c.name == "receipt" and c.status != "passed") for c in own):  # 1
            verdict = "rejected"
        elif accepted >= needed:  # 2
            verdict = "undecided" if any(check.status == "undecided" for check in own) else "accepted"
        elif accepted + said.count(None) >= needed:  # 3
            is_open = True
        elif any(report is not None and report.verdict == "rejected" for report in said):  # 4
            verdict = "rejected"
        reports = [report for report in said if report is not None]
        chosen = next((report for report in reports if report.verdict == verdict), reports[0] if reports else None)
        checks = chosen.checks if chosen else tuple(_unavailable(opinion) for opinion in opinions)
        done = (*own, *checks)
        return cls(
            verdict=verdict,
            model=chosen.model if chosen else None,
            coverage=coverage_of(done),
            checks=done,
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


def _without(report: Report, choices: Collection[int]) -> Report:
    """What a report says of the other choices. What it says against the whole response may be of these."""
    if not choices:
        return report
    whole = [c for c in report.checks if c.choice is None and (c.name != "response" or c.status == "passed")]
    kept = [*whole, *(c for c in report.checks if c.choice is not None and c.choice not in choices)]
    return Report.of(kept, model=report.model)


def _unavailable(opinion: Opinion) -> Check:
    return Check(name="evidence", status="undecided", reason="unavailable", message=opinion.problem or "no report")
