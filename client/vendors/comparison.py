"""How vendors fare beside each other: each one's findings added up, and what of them contradicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from toploc.evidence.tokenised import counted

from ..audit.surprise import Surprises
from ..audit.unproven import Unproven
from .findings import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..audit.entry import Entry
    from .asking import Reply
    from .config import Price
    from .findings import Finding

OVER: Final = 0.02
"""By how much more tokens may be said than the texts have. How a model tokenises its own text moves them by less."""

LEAST: Final = 64
"""Tokens counted, below which nothing is said of the share."""

SURE: Final = frozenset(
    """sum malformed choices reason too_long cut_short no_call not_said unended form unknown_tool json schema
    leaked""".split()  # noqa: SIM905
)
"""Reasons of problems that one answer shows for certain."""

MOST_EXAMPLES: Final = 20


@dataclass(slots=True)
class Row:
    """Of one vendor. `found`: what contradicts, in words; `unsure`: what may have an innocent cause.

    `said`, `own`: completion tokens that `usage` says, and that the texts have, of answers of which both are known.
    `equal`, of `streams`: streams that say what the same request said without. `called`, of `asked_with_tools`.
    """

    vendor: str
    model: str
    asked: int = 0
    answered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    said: int = 0
    own: int = 0
    prompts_right: int = 0
    prompts: int = 0
    asked_with_tools: int = 0
    called: int = 0
    calls: int = 0
    readable: int = 0
    valid: int = 0
    f1: float | None = None
    streams: int = 0
    equal: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, Any] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    dollars: float | None = None
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    examples: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Key, check, reason and message of some problems, those that are sure first."""

    @property
    def over(self) -> float | None:
        """The share of completion tokens that are said and not there, below 0 where tokens are not said."""
        return self.said / self.own - 1 if self.own >= LEAST else None

    @property
    def verdict(self) -> str:
        """`contradicted`, `nothing found`, or `undecided` where less than half was answered or could be told."""
        if self.found:
            return "contradicted"
        looked = self.verdicts.total() == 0 or 2 * self.verdicts["weak"] >= self.verdicts.total()
        return "nothing found" if 2 * self.answered >= self.asked and looked else "undecided"


def row_of(
    name: str,
    model: str,
    replies: Sequence[Reply],
    findings: Sequence[Finding],
    entries: Sequence[Entry],
    price: Price | None,
) -> Row:
    """Of one vendor's replies, what each shows, and the verifier's reports on them."""
    row = Row(name, model, asked=len(replies), answered=sum(reply.response is not None for reply in replies))
    for finding in findings:
        _count(row, finding)
    _compare_streams(row, replies)
    _add_up_reports(row, entries)
    if price is not None:
        row.dollars = sum(_dollars(reply, price) for reply in replies)
    _conclude(row)
    return row


def called_by(findings: Sequence[Finding]) -> dict[str, bool]:
    """By question about tools: whether a tool was called. Of those that were answered."""
    return {
        finding.key: finding.calls > 0
        for finding in findings
        if finding.has_tools and not any(problem.check == "answered" for problem in finding.problems)
    }


def most_call(vendors: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """What more than half of the vendors do with each question."""
    votes: dict[str, list[bool]] = {}
    for called in vendors:
        for key, value in called.items():
            votes.setdefault(key, []).append(value)
    return {key: 2 * sum(values) > len(values) for key, values in votes.items()}


def f1(called: Mapping[str, bool], reference: Mapping[str, bool]) -> float | None:
    """How alike two vendors are in when they call a tool: the harmonic mean of precision and recall (van Rijsbergen,
    Information Retrieval, 1979). None where neither calls any."""
    both = [key for key in called if key in reference]
    hits = sum(called[key] and reference[key] for key in both)
    total = sum(called[key] for key in both) + sum(reference[key] for key in both)
    return 2 * hits / total if total else None


def _count(row: Row, finding: Finding) -> None:
    row.reasons.update(f"{problem.check}: {problem.reason}" for problem in finding.problems)
    if finding.said_completion is not None and finding.own_completion is not None:
        row.said += finding.said_completion
        # One that counts its end is right, and so is one that does not.
        row.own += min(finding.own_completion + 1, max(finding.own_completion, finding.said_completion))
    if finding.said_prompt is not None and finding.own_prompt is not None:
        row.prompts += 1
        row.prompts_right += finding.said_prompt == finding.own_prompt
    answered = not any(problem.check == "answered" for problem in finding.problems)
    row.asked_with_tools += finding.has_tools and answered
    row.called += finding.calls > 0
    row.calls, row.readable = row.calls + finding.calls, row.readable + finding.readable
    row.valid += finding.valid
    for problem in sorted(finding.problems, key=lambda one: one.reason not in SURE):
        row.examples.append((finding.key, problem.check, problem.reason, problem.message))


def _compare_streams(row: Row, replies: Sequence[Reply]) -> None:
    known = {reply.key: reply for reply in replies}
    for key, reply in known.items():
        kind, _, number = key.partition(":")
        whole = known.get(f"canary:{number}")
        if kind != "streamed" or whole is None:
            continue
        texts = text_of(reply.response), text_of(whole.response)
        if None not in texts:
            row.streams += 1
            row.equal += texts[0] == texts[1]


def _add_up_reports(row: Row, entries: Sequence[Entry]) -> None:
    unproven, surprises = Unproven(), Surprises()
    for entry in entries:
        row.verdicts["weak" if entry.report.weak else entry.report.verdict] += 1
        unproven.add(entry)
        surprises.add(entry)
        if entry.report.verdict == "rejected":
            row.rejections.update(entry.reasons)
    row.tokens = unproven.to_json()
    row.alarms = [f"{one.kind}: {one}" for one in surprises if one.test.raised]


def _conclude(row: Row) -> None:
    for reason, count in row.reasons.most_common():
        if reason.partition(": ")[2] in SURE:
            row.found.append(f"{count:,} of {row.answered:,} answers: {reason}")
    if row.over is not None and row.over > OVER:
        row.found.append(f"`usage` says {row.over:.1%} more completion tokens than the texts have")
    if row.verdicts["rejected"]:
        count, total = row.verdicts["rejected"], row.verdicts.total()
        why = ", ".join(row.rejections)
        row.found.append(f"{count:,} of {total:,} answers are none that the claimed model writes ({why})")
    row.found += [f"all answers together raise an alarm ({alarm})" for alarm in row.alarms]
    if row.over is not None and row.over < -OVER:
        row.unsure.append(f"`usage` says {-row.over:.1%} fewer completion tokens than the texts have")
    if row.prompts_right < row.prompts:
        wrong = row.prompts - row.prompts_right
        row.unsure.append(f"{wrong:,} of {row.prompts:,} prompts are counted as of another length: another template?")
    if row.streams and 2 * row.equal < row.streams:
        row.unsure.append(f"only {row.equal:,} of {row.streams:,} streams say what the same request said without")
    for reason in ("usage: missing", "finish: empty"):
        if row.reasons[reason]:
            row.unsure.append(f"{row.reasons[reason]:,} of {row.answered:,} answers: {reason}")
    if row.answered < row.asked:
        row.unsure.append(f"{row.asked - row.answered:,} of {row.asked:,} requests were not answered")
    row.examples.sort(key=lambda one: one[2] not in SURE)
    del row.examples[MOST_EXAMPLES:]


def _dollars(reply: Reply, price: Price) -> float:
    usage = reply.response.get("usage") if reply.response is not None else None
    prompt, completion = counted(usage, ("prompt_tokens",)) or 0, counted(usage, ("completion_tokens",)) or 0
    return (prompt * price.input + completion * price.output) / 1e6
