"""What a verifier says of an answer: its checks, and the verdict that follows from them. Needs pydantic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from .engine import Engine  # noqa: TC001 (pydantic reads it)
from .foreign import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 2
"""Of a report, raised when its form changes. Version 1 is read too."""

CheckName = Literal[
    "evidence", "model", "prompt", "proofs", "pooled", "tokens", "text", "finish", "response", "receipt"
]
Status = Literal["passed", "weak", "failed", "skipped", "undecided"]
ReportVerdict = Literal["accepted", "rejected", "undecided"]

REQUIRED: Final = ("model", "prompt", "proofs", "response")
"""What has to have passed for an answer to be accepted. The others may be skipped, with a reason."""

UNPROVEN: Final = "unproven"
"""The reason of a check that was skipped or is weak since the answer carries no proofs, and was to be held to its text
alone. `proofs` are skipped with it, so that such an answer is never accepted."""

ORDER: Final = ("failed", "undecided", "weak", "skipped", "passed")
"""Of checks in the text of a report: what a reader has to act on comes first."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Check(_Frozen):
    """One check of one choice, or of the whole answer where `choice` is None.

    `passed`: it was done and found nothing. `weak`: it was done and found nothing, and would have missed much; the
    message says how much. `failed`: it found a contradiction. `skipped`: it does not apply, for a cause that only the
    requester can bring about. `undecided`: this verifier cannot tell, or the prover left out what it needs. `reason`
    is stable and stands in `docs/verify.md`; it is None only for what passed. `message` is for people: what was found;
    `details`: where, a line each.
    """

    name: CheckName
    status: Status
    choice: int | None = Field(default=None, ge=0)
    reason: str | None = None
    message: str
    details: tuple[str, ...] = ()
    figures: dict[str, JsonValue] = {}
    thresholds: dict[str, JsonValue] = {}

    def __str__(self) -> str:
        place = self.name if self.choice is None else f"{self.name} of choice {self.choice}"
        reason = f" ({self.reason})" if self.reason else ""
        lines = [f"{self.status:9} {place}: {self.message}{reason}", *(f"{'':10}{line}" for line in self.details)]
        return "\n".join(printable(line) for line in lines)


class Engines(_Frozen):
    """What computed the states: on the prover's side by its own word, None where it says nothing, and on the
    verifier's as it knows itself."""

    prover: Engine | None = None
    verifier: Engine | None = None

    def __str__(self) -> str:
        word = f"{self.prover}, by its own word" if self.prover else "it does not say"
        return "\n".join([f"engine of the prover: {word}", f"engine of the verifier: {self.verifier or 'unknown'}"])


class Report(_Frozen):
    """The checks of one answer, and the verdict, which `of` derives from them."""

    version: Literal[1, 2] = VERSION
    verdict: ReportVerdict
    model: str | None = Field(default=None, description="the served name in the evidence")
    coverage: str = Field(default="", description="which checks the verdict rests on, which it lacks, and why")
    checks: tuple[Check, ...]
    engines: Engines | None = Field(default=None, description="of prover and verifier; None where nothing was computed")

    @classmethod
    def of(cls, checks: Iterable[Check], *, model: str | None = None, engines: Engines | None = None) -> Self:
        """A report with its verdict.

        1. rejected, if any check failed.
        2. undecided, if any check is undecided.
        3. accepted, if checks of all names in `REQUIRED` are there and have passed, for every choice.
        4. undecided otherwise: something that had to be checked could not be.
        """
        done = tuple(checks)
        statuses = {check.status for check in done}
        verdict: ReportVerdict = "undecided"
        if "failed" in statuses:  # 1
            verdict = "rejected"
        elif "undecided" not in statuses and all(_passed(done, name) for name in REQUIRED):  # 2, 3
            verdict = "accepted"
        return cls(verdict=verdict, model=model, coverage=coverage_of(done), checks=done, engines=engines)

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, value: Any) -> Any:
        """Version 1 said `error` for what is undecided, in verdict and checks."""
        if not isinstance(value, dict) or value.get("version") != 1:
            return value
        checks = value.get("checks")
        if isinstance(checks, list | tuple):
            checks = [_without_error(check) for check in checks]
        verdict = "undecided" if value.get("verdict") == "error" else value.get("verdict")
        return {**value, "verdict": verdict, "checks": checks}

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    @property
    def weak(self) -> bool:
        """Of an answer without proofs that was to be held to its text alone: whether that was done and found nothing.

        Its verdict is `undecided` all the same, as of one of which nothing could be told.
        """
        unproven = any(check.name == "proofs" and check.reason == UNPROVEN for check in self.checks)
        open_ones = any(check.status in ("failed", "undecided") for check in self.checks)
        return unproven and not open_ones and any(c.name == "tokens" and c.status == "weak" for c in self.checks)

    def __str__(self) -> str:
        told = self.model or ("no evidence" if any(c.name == "evidence" for c in self.checks) else "no model named")
        checks = sorted(self.checks, key=lambda check: ORDER.index(check.status))
        lines = [line for check in checks for line in str(check).splitlines()]
        lines += [printable(line) for line in str(self.engines or "").splitlines()]
        verdict = self.verdict.upper() + (" (nothing found; it proves nothing)" if self.weak else "")
        return "\n".join([printable(f"{verdict}  {told}"), *(f"  {line}" for line in lines)])


def _without_error(check: Any) -> Any:
    in_error = isinstance(check, dict) and check.get("status") == "error"
    return {**check, "status": "undecided"} if in_error else check


def coverage_of(checks: Iterable[Check]) -> str:
    """In one line: which checks were done, of what not, which weakly, and which not and why."""
    worst: dict[str, Check] = {}
    uncovered: dict[str, dict[str, None]] = {}
    for check in checks:
        left_out = check.figures.get("uncovered") if check.status == "passed" else None
        if isinstance(left_out, list):
            uncovered.setdefault(check.name, {}).update((str(part), None) for part in left_out)
        before = worst.get(check.name)
        if before is None or ORDER.index(check.status) < ORDER.index(before.status):
            worst[check.name] = check
    parts = []
    for label, statuses in (("checked", ("passed", "failed")), ("weakly", ("weak",))):
        names = [_but(name, uncovered.get(name, {})) for name, check in worst.items() if check.status in statuses]
        if names:
            parts.append(f"{label}: {', '.join(names)}")
    rest = [f"{n} ({c.reason})" for n, c in worst.items() if c.status in ("skipped", "undecided")]
    if rest:
        parts.append(f"not checked: {', '.join(rest)}")
    return "; ".join(parts)


def _but(name: str, uncovered: Iterable[str]) -> str:
    listed = ", ".join(map(printable, uncovered))
    return f"{name} (but not of {listed})" if listed else name


def _passed(checks: tuple[Check, ...], name: str) -> bool:
    """Whether there are checks of this name, of every choice that any check is about, and all passed, if weakly."""
    named = [check for check in checks if check.name == name]
    choices = {check.choice for check in checks} - {None}
    covered = {check.choice for check in named}
    return (
        bool(named) and all(c.status in ("passed", "weak") for c in named) and (None in covered or covered >= choices)
    )


def malformed(reason: str, message: str, field: str = "") -> Report:
    """The report on what is no evidence. Malformed proofs are their maker's doing: rejected. What else is wrong may be
    the requester's, or new to this version: undecided."""
    accuses = field.startswith("response.toploc_proofs") and "missing" not in message
    status: Status = "failed" if accuses else "undecided"
    return Report.of([Check(name="evidence", status=status, reason=reason, message=message)])


def refused(message: str) -> Report:
    """The report where a verifier took the request, and refused or failed on this answer."""
    return Report.of([Check(name="evidence", status="undecided", reason="refused", message=message)])
