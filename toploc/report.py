"""What a verifier says of an answer: its checks, and the verdict that follows from them. Needs pydantic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 1
"""Of a report, raised when its form changes."""

CheckName = Literal["evidence", "model", "prompt", "proofs", "pooled", "tokens", "text", "finish", "receipt"]
Status = Literal["passed", "failed", "skipped", "error"]
ReportVerdict = Literal["accepted", "rejected", "error"]

REQUIRED: Final = ("model", "prompt", "proofs")
"""What has to have passed for an answer to be accepted. The others may be skipped, with a reason."""

QUOTED: Final = 40
"""Characters of an answer's text that a message repeats."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Check(_Frozen):
    """One check of one choice, or of the whole answer where `choice` is None.

    `passed`: it was done and found nothing. `failed`: it found something. `skipped`: it could not be done, or not
    for this request. `error`: what it needs is malformed. `reason` is stable and stands in `docs/verify.md`; it is
    None only for what passed. `message` is for people: what was found, and where.
    """

    name: CheckName
    status: Status
    choice: int | None = Field(default=None, ge=0)
    reason: str | None = None
    message: str
    figures: dict[str, JsonValue] = {}
    thresholds: dict[str, JsonValue] = {}

    def __str__(self) -> str:
        place = self.name if self.choice is None else f"{self.name} of choice {self.choice}"
        reason = f" ({self.reason})" if self.reason else ""
        return printable(f"{self.status:7} {place}: {self.message}{reason}")


class Report(_Frozen):
    """The checks of one answer, and the verdict, which `of` derives from them."""

    version: Literal[1] = VERSION
    verdict: ReportVerdict
    model: str | None = Field(default=None, description="the served name in the evidence")
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, checks: Iterable[Check], *, model: str | None = None) -> Self:
        """A report with its verdict.

        1. rejected, if any check failed.
        2. error, if any check is in error.
        3. accepted, if checks of all names in `REQUIRED` are there and have passed, for every choice.
        4. error otherwise: something that had to be checked could not be.
        """
        done = tuple(checks)
        statuses = {check.status for check in done}
        verdict: ReportVerdict = "error"
        if "failed" in statuses:  # 1
            verdict = "rejected"
        elif "error" not in statuses and all(_passed(done, name) for name in REQUIRED):  # 2, 3
            verdict = "accepted"
        return cls(verdict=verdict, model=model, checks=done)

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    def __str__(self) -> str:
        head = f"{self.verdict.upper()}  {self.model or 'unknown model'}"
        return "\n".join([printable(head), *(f"  {check}" for check in self.checks)])


def _passed(checks: tuple[Check, ...], name: str) -> bool:
    """Whether there are checks of this name, of every choice that any check is about, and all passed."""
    named = [check for check in checks if check.name == name]
    choices = {check.choice for check in checks} - {None}
    covered = {check.choice for check in named}
    return bool(named) and all(c.status == "passed" for c in named) and (None in covered or covered >= choices)


def malformed(reason: str, message: str) -> Report:
    """The report on what is no evidence at all."""
    return Report.of([Check(name="evidence", status="error", reason=reason, message=message)])


def quote(text: str) -> str:
    """Text as a message repeats it: on one line, in quotes, and not long."""
    return printable(f'"{text[:QUOTED]}"' if len(text) <= QUOTED else f'"{text[: QUOTED - 1]}…"')


def printable(text: str) -> str:
    """Text from elsewhere, with what could move a terminal's cursor or turn its text around made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
