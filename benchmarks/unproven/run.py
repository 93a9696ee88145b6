"""What answers without proofs tell of the model that wrote them, by number of answers and dollars.

    python benchmarks/unproven/run.py FOLDER [--input 0.1] [--output 0.4]

Answers are those of `texts.py`, which are made where they are missing. transformers holds each against the claimed
model, as a verifier does that was told ids and log-probabilities; FOLDER keeps what it finds. Bounds on margins and the
spread of honest log-probabilities come from every second honest answer, and nothing else of the honest ones does.
Prices are in dollars per million tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import texts

from toploc.evidence.parse import parse_evidence
from toploc.pooling.alarm import audits_needed, threshold
from toploc.pooling.spread import Alternative, Spread
from toploc.pooling.surprise import FALSE_ALARM
from toploc.thresholds.tokens import DEFAULT
from toploc.tokens.margins import margin_ratios
from toploc.verifier.judge import Computed, judge
from toploc.verifier.prefill import load_prefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Row = dict[str, Any]

MOST: Final = 1000
"""Answers until which an alarm is waited for."""
SIMULATIONS: Final = 300
CHUNK: Final = 32
ROUND: Final = 8
"""Answers of a writer that are scored before the next writer's."""
LEAST: Final = 1e-4
"""Of a mean distance: 0 has no logarithm."""
SEED: Final = 5


def evidence_of(row: Row, kind: str, *, text_alone: bool) -> bytes:
    """As a provider would say it that gives ids and log-probabilities, or text alone."""
    count = len(row["token_ids"])
    choice: Row = {"index": 0, "finish_reason": row["finish_reason"], "message": {"content": row["text"]}}
    if not text_alone:
        listed = [{"token": "", "logprob": value} for value in row["logprobs"]]
        choice |= {"token_ids": row["token_ids"], "logprobs": {"content": listed}}
    usage = {"prompt_tokens": row["prompt_tokens"], "completion_tokens": count, "total_tokens": 0}
    response = {"object": "chat.completion", "model": texts.NAME, "choices": [choice], "usage": usage}
    request = {**texts.request(kind, row["number"]), "messages": [{"role": "user", "content": row["prompt"]}]}
    return json.dumps({"request": request, "response": response, "proofs": "none"}).encode()


def kept(folder: Path) -> dict[tuple[str, str], list[Row]]:
    """What the verifier found of each answer, as far as it is there."""
    found = {}
    for writer in texts.WRITERS:
        for kind in texts.KINDS:
            path = _path(folder, writer, kind)
            if path.exists() and (rows := [json.loads(line) for line in path.read_text("utf-8").splitlines()]):
                found[writer, kind] = rows
    return found


def score(folder: Path) -> None:
    """Has the verifier find it of the others, a few of each writer's in turn, so that whatever there is can be read."""
    # In single precision, which on a processor without bfloat16 is four times as quick, and lies no further off.
    prefill = load_prefill(str(texts.fetch.fetch(texts.NAME)), "float32", "cpu")
    verifier = TransformersVerifier(prefill, names=[texts.NAME])
    pairs = {(w, k): texts.rows(folder, w, k) for w in texts.WRITERS for k in texts.KINDS}
    most = max(map(len, pairs.values()))
    for first in range(0, most, ROUND):
        for (writer, kind), rows in pairs.items():
            done = len(kept(folder).get((writer, kind), ()))
            with _path(folder, writer, kind).open("a", encoding="utf-8") as file:
                for row in rows[max(first, done) : first + ROUND]:
                    file.write(json.dumps(_score(verifier, row, kind)) + "\n")
                    file.flush()


def _path(folder: Path, writer: str, kind: str) -> Path:
    return folder / f"{writer}-{kind}.scores.jsonl"


def _score(verifier: TransformersVerifier, row: Row, kind: str) -> Row:
    began = time.process_time()
    by_ids = parse_evidence(
        evidence_of(row, kind, text_alone=False), verifier.prefill.sampling_defaults, verifier.prefill
    )
    [told] = parse_evidence(evidence_of(row, kind, text_alone=True), None, verifier.prefill).tokenised
    computed = verifier.compute(by_ids, by_ids.answers[0])
    assert isinstance(computed, Computed)
    assert computed.scores is not None
    assert computed.logprobs is not None
    report = judge(by_ids, verifier.policy, [computed])
    checks = {check.name: check for check in report.checks}
    tokens = checks.get("tokens")
    return {
        "number": row["number"],
        "tokens": len(row["token_ids"]),
        "prompt_tokens": row["prompt_tokens"],
        "known": told.problem is None,
        "same": told.token_ids == tuple(row["token_ids"]),
        "verdict": report.verdict,
        "reasons": [check.reason for check in report.checks if check.status in ("failed", "undecided")],
        "margins": [round(float(value), 5) for value in computed.scores.margin],
        "distances": [round(abs(a - b), 5) for a, b in zip(row["logprobs"], computed.logprobs.tolist(), strict=True)],
        "log_ratios": {} if tokens is None else tokens.figures.get("log_ratios", {}),
        "seconds": round(time.process_time() - began, 3),
    }


def calibrated(honest: Sequence[Row]) -> tuple[float, float]:
    """`near` and `rate` of margins: a step of the logits, and an upper bound on the share beyond, as
    `benchmarks/tokens` takes it."""
    margins = np.concatenate([row["margins"] for row in honest])
    near = DEFAULT.near / 2
    return near, float(f"{(2 * int((margins > near).sum()) + 3) / len(margins):.1g}")


def until_alarm(ratios: Sequence[dict[str, float]]) -> Floats:
    """After how many answers, drawn with replacement, `PooledSurprise` raises its alarm; `MOST` + 1 for never."""
    table = np.array([list(one.values()) for one in ratios])
    random = np.random.default_rng(SEED)
    running = np.full((SIMULATIONS, table.shape[1]), -np.inf)
    alarmed = np.full(SIMULATIONS, MOST + 1.0)
    for number in range(1, MOST + 1):
        running = np.logaddexp(0.0, running) + table[random.integers(len(table), size=SIMULATIONS)]
        mean = np.logaddexp.reduce(running, axis=1) - np.log(table.shape[1])
        alarmed = np.where((alarmed > MOST) & (mean >= np.log(number / FALSE_ALARM)), number, alarmed)
    return alarmed


def chunks(row: Row) -> list[float]:
    """The logarithm of the mean distance of log-probabilities, by chunk."""
    distances = row["distances"]
    parts = [distances[at : at + CHUNK] for at in range(0, len(distances), CHUNK)]
    return [float(np.log(max(fmean(part), LEAST))) for part in parts if len(part) == CHUNK]


def by_logprobs(honest: Sequence[Row], altered: Sequence[Row]) -> tuple[Floats, Floats]:
    """Answers until the CUSUM of log-probabilities raises its alarm, of the altered and of the honest held out. The
    alternative is fitted to every second altered answer."""
    known = [scores for row in honest[::2] if (scores := chunks(row))]
    copy = [scores for row in altered[::2] if (scores := chunks(row))]
    test = Alternative(Spread.fit(known), Spread.fit(copy), share=0.5)
    ratios = [
        np.array([test.log_ratio(scores) for row in rows[1::2] if (scores := chunks(row))])
        for rows in (honest, altered)
    ]
    limit = threshold(ratios[0], answers=MOST, simulations=SIMULATIONS)
    return tuple(  # type: ignore[return-value]
        audits_needed(ratios[0], ratios[1], share=share, limit=limit, most=MOST, simulations=SIMULATIONS).astype(
            np.float64
        )
        for share in (1.0, 0.0)
    )


def told(alarmed: Floats) -> str:
    """The median and the 95th percentile, in answers."""
    middle, late = (float(np.quantile(alarmed, part, method="higher")) for part in (0.5, 0.95))
    if middle > MOST:
        share = float((alarmed <= MOST).mean())
        return f"none in {MOST:,}" if share == 0 else f"in {MOST:,}: {share:.1%}"
    return f"{middle:,.0f} ({late:,.0f})" if late <= MOST else f"{middle:,.0f} (more than {MOST:,})"


def line(writer: str, kind: str, rows: Sequence[Row], found: dict[tuple[str, str], list[Row]], price: Price) -> str:
    honest = found["model", kind]
    near, rate = calibrated(found["model", "greedy"][::2])
    own = rows[1::2] if writer == "model" else rows
    margins = np.concatenate([row["margins"] for row in own])
    rejected = sum(row["verdict"] == "rejected" for row in own)
    cells = [writer, kind, str(len(own)), f"{sum(row['known'] for row in own) / len(own):.0%}"]
    cells += [f"{(margins == 0).mean():.2%}" if kind == "greedy" else "-", f"{rejected} of {len(own)}"]
    if kind == "greedy":
        ratios = [margin_ratios(np.array(row["margins"]), near, rate) for row in own]
    else:
        ratios = [row["log_ratios"] for row in own if row["log_ratios"]]
    pooled = until_alarm(ratios) if ratios else np.full(1, MOST + 1.0)
    cells += [f"{fmean(fmean(row['distances']) for row in own):.3f}", told(pooled)]
    if writer == "model":
        cells.append("-")
    else:
        altered, fair = by_logprobs(honest, rows)
        cells.append(f"{told(altered)}; honest {told(fair)}")
    middle = float(np.median(pooled))
    cells.append("-" if middle > MOST else f"{middle * price.of(own):.5f}")
    return f"| {' | '.join(cells)} |"


class Price:
    """Dollars per million tokens."""

    def __init__(self, prompt: float, completion: float) -> None:
        self.prompt, self.completion = prompt, completion

    def of(self, rows: Sequence[Row]) -> float:
        """Of an answer."""
        prompt, completion = (fmean(row[name] for row in rows) for name in ("prompt_tokens", "tokens"))
        return (prompt * self.prompt + completion * self.completion) / 1e6


HEAD: Final = (
    *("text by", "asked", "answers", "known by text", "own choice", "rejected alone", "distance"),
    *("alarm by tokens", "alarm by log-probabilities", "dollars to the alarm"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--input", type=float, default=0.1)
    parser.add_argument("--output", type=float, default=0.4)
    parser.add_argument("--as-it-is", action="store_true", help="of what FOLDER has alone")
    options = parser.parse_args()
    if not options.as_it_is:
        texts.write(options.folder)
        score(options.folder)
    found = kept(options.folder)
    near, rate = calibrated(found["model", "greedy"][::2])
    every = [row for rows in found.values() for row in rows]
    wrong = sum(row["known"] and not row["same"] for row in every)
    print(f"margins: near {near:g}, rate {rate:g}; a verification took {fmean(row['seconds'] for row in every):.2f} s")
    print(f"texts whose tokens are taken for known and are others: {wrong} of {sum(row['known'] for row in every)}\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for (writer, kind), rows in found.items():
        print(line(writer, kind, rows, found, Price(options.input, options.output)))


if __name__ == "__main__":
    main()
