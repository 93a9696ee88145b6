"""What a fleet pays for proofs and audits, from what was measured on one machine.

    python benchmarks/growth/fleet.py

Prints the tables of docs/operations.md. Nothing runs: `measured.py` has the figures and their pages.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measured import (
    ALARMS,
    AT_ONCE,
    AUDITS_OF_A_TEST,
    DIGEST,
    ENCODE,
    FALSE_ALARM,
    GENERATE,
    KEPT,
    PREFILL,
    REFUSED,
    RING,
    SCORES,
    SIGN,
)

from toploc.scheme import CHUNK_SIZE, TOPK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT: Final = Path(__file__).parents[2]
DAY: Final = 86_400
TOKENS: Final = 512
CHUNKS: Final = TOKENS // CHUNK_SIZE
PROOF: Final = 2 + 2 * TOPK
PROOF_IN_JSON: Final = (PROOF + 2) // 3 * 4 + len('"",')
TOKEN_ID_IN_JSON: Final = len("128255,")
ANSWERS: Final = 1_000_000_000
RATES: Final = (0.001, 0.01, 0.1, 1.0)

GENERATED: Final = GENERATE.value / AT_ONCE
"""GPU seconds of an answer."""

ENCODED: Final = CHUNKS * ENCODE.value * 1e-6
SIGNED: Final = (SIGN.value + DIGEST.value) * 1e-6


def verified(kind: str) -> float:
    """GPU seconds to verify an answer to this kind of request."""
    return PREFILL.value / AT_ONCE + SCORES[kind].value / 1000


def receipt_bytes() -> int:
    """The longest of the receipts in the document's vectors, as JSON."""
    vectors = json.loads((ROOT / "docs" / "receipt-vectors.json").read_text("utf-8"))
    receipts = ({"statement": json.loads(c["statement"]), "signature": c["signature"]} for c in vectors["leaves"])
    return max(len(json.dumps(receipt, separators=(",", ":"))) for receipt in receipts)


def a_million() -> Iterable[Sequence[str]]:
    million = 1_000_000
    lost = GENERATED * (1 / KEPT.value - 1)
    yield "proofs, as bytes / in JSON", f"{PROOF * CHUNKS / 1e3:.2f} / {PROOF_IN_JSON * CHUNKS / 1e3:.2f} GB"
    yield "token ids in JSON, at most", f"{TOKEN_ID_IN_JSON * TOKENS / 1e3:.2f} GB"
    yield "receipts in JSON", f"{receipt_bytes() / 1e3:.2f} GB"
    yield "prover's CPU: encoding", f"{ENCODED * million:,.0f} core seconds"
    yield "prover's CPU: receipts and digests", f"{SIGNED * million:,.0f} core seconds"
    yield "prover's GPU: the answers", f"{GENERATED * million:,.0f} GPU seconds"
    yield "prover's GPU: lost to proofs at 256 at once", f"{lost * million:,.0f} GPU seconds"
    for kind in SCORES:
        yield f"verifier's GPU, if all are audited, {kind}", f"{verified(kind) * million:,.0f} GPU seconds"


def verifiers() -> Iterable[Sequence[str]]:
    for kind in SCORES:
        ratio = verified(kind) / GENERATED
        yield kind, f"{verified(kind) * 1000:.1f}", *(_plain(rate * ratio) for rate in RATES)


def detection() -> Iterable[Sequence[str]]:
    hourly = 3600 / GENERATED
    for alarm in ALARMS:
        for share, figure in (("all", alarm.whole), ("a tenth", alarm.tenth)):
            rate = figure.value / hourly
            gpus = rate * verified("greedy") / GENERATED
            yield alarm.change, share, f"{figure.value:.0f}", _percent(rate), _percent(rate / 24), _plain(gpus)


def a_day() -> Iterable[Sequence[str]]:
    provers = ANSWERS * GENERATED / DAY
    audits = AUDITS_OF_A_TEST * provers
    percent = ANSWERS * 0.01
    yield "prover GPUs", f"{provers:,.0f}"
    yield "more of them, for proofs at 256 at once", f"{provers * (1 / KEPT.value - 1):,.0f}"
    yield "their memory for rows", f"{RING.value:.0f} MiB each"
    yield "proofs in JSON", f"{ANSWERS * PROOF_IN_JSON * CHUNKS / 1e12:.2f} TB"
    yield "receipts in JSON", f"{ANSWERS * receipt_bytes() / 1e12:.2f} TB"
    yield "cores that encode, and that sign", f"{ANSWERS * ENCODED / DAY:.1f} and {ANSWERS * SIGNED / DAY:.1f}"
    yield "1,000 audits for each prover GPU", f"{audits:,.0f}, {_percent(audits / ANSWERS)} of the answers"
    yield "their verifier GPUs, greedy / top-p", _gpus(audits)
    yield "their false alarms, of a test for each GPU, at most", f"{provers * FALSE_ALARM.value:.1f}"
    yield "1 % of the answers audited: verifier GPUs, greedy / top-p", _gpus(percent)
    refused = percent * CHUNKS * REFUSED.value
    yield "honest answers refused among these, by bounds for 1e-4 a chunk", f"{refused:,.0f}"


def _plain(value: float) -> str:
    """Three digits, without an exponent."""
    return format(Decimal(f"{value:.3g}"), "f")


def _percent(share: float) -> str:
    return f"{_plain(100 * share)} %"


def _gpus(audits: float) -> str:
    return " / ".join(_plain(audits * verified(kind) / DAY) for kind in ("greedy", "sampled with top-p"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> dict[str, str]:
    """By name, as the document has them."""
    rates = [_percent(rate) for rate in RATES]
    return {
        "a million answers": table(["a million answers", ""], a_million()),
        "verifiers": table(["requests", "ms of a GPU an answer", *(f"{rate} audited" for rate in rates)], verifiers()),
        "detection": table(
            ["served altered", "share", "audits", "rate, within an hour", "within a day", "verifier GPUs, an hour"],
            detection(),
        ),
        "a day": table(["a day of 1,000,000,000 answers", ""], a_day()),
    }


if __name__ == "__main__":
    print("\n\n".join(tables().values()))
