"""What was measured, and where it stands: a test holds each quotation to its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVIDENCE: Final = "docs/evidence.md"
SERVING: Final = "benchmarks/serving/README.md"
VERIFY: Final = "benchmarks/verify/README.md"
CORE: Final = "benchmarks/core/README.md"
RECEIPTS: Final = "docs/receipts.md"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, as `page` has it within `quote`."""

    value: float
    page: str
    quote: str


# One H100, Llama-3.1-8B's shape, prompts of 128 tokens, answers of 512, 256 at once, in one process.
GENERATE: Final = Figure(8.12, EVIDENCE, "| 256 | 8.12 | 4.9978 |")
"""Seconds, of 256 answers, with their proofs."""

PREFILL: Final = Figure(4.9978, EVIDENCE, "| 256 | 8.12 | 4.9978 |")
"""Seconds: prefill, top-k and comparison of 256 answers."""

AT_ONCE: Final = 256

# The same GPU, over HTTP, proofs off and on by request.
KEPT: Final = Figure(0.963, SERVING, "| 256 | 0.963 | 0.917 |")
"""Output tokens/s with proofs as a share of those without, 256 concurrent."""

# Milliseconds of the GPU for the scores of 512 tokens of a vocabulary of 128,256.
SCORES: Final = {
    "greedy": Figure(1.5, VERIFY, "| scores of a greedy answer | 1.5,"),
    "sampled": Figure(2.3, VERIFY, "| scores, sampled without truncation | 2.3 |"),
    "sampled with top-p": Figure(36, VERIFY, "| scores, sampled with top-p | 36 |"),
}

RING: Final = Figure(240, SERVING, "480 slots of hidden size 4096 for 256 sequences are 240 MiB")
"""MiB of a prover's GPU."""

# Microseconds of one core.
ENCODE: Final = Figure(9.4, CORE, "| encode (modulus, interpolate, bytes) | 9.9 | 9.9 | 9.4 |")
"""A proof, hidden size 4096; its top-k is the GPU's."""

SIGN: Final = Figure(153, RECEIPTS, "| receipt of a choice of 256 tokens, without the request | 153 |")
DIGEST: Final = Figure(94, RECEIPTS, "| both digests of a chat request of 12,246 bytes | 94 |")


@dataclass(frozen=True, slots=True)
class Alarm:
    """Audited answers until the alarm, in 95 % of the runs, by the share that is served altered."""

    change: str
    whole: Figure
    tenth: Figure


def _alarm(change: str, row: str, whole: int, tenth: int) -> Alarm:
    return Alarm(change, Figure(whole, EVIDENCE, row), Figure(tenth, EVIDENCE, row))


ALARMS: Final = (
    _alarm("int8 weights, SmolLM2", "| int8 weights | SmolLM2 | 2 / 4 | 4 / 10 | 6 / 16 | 17 / 54 |", 4, 54),
    _alarm("int8 weights, Gemma", "| int8 weights | Gemma | 4 / 6 | 8 / 15 | 14 / 27 | 40 / 81 |", 6, 81),
    _alarm(
        "weights rounded to fp8, Gemma",
        "| weights rounded to fp8 | Gemma | 2 / 2 | 3 / 8 | 5 / 14 | 14 / 41 |",
        2,
        41,
    ),
    _alarm("fp8 KV cache, Gemma", "| fp8 KV cache | Gemma | 4 / 4 | 7 / 13 | 11 / 22 | 32 / 69 |", 4, 69),
    _alarm(
        "int8 weights, a small model",
        "| int8 weights | trained, 1024 | 235 / 243 | 393 / 426 | 538 / 596 | 852 / 954 |",
        243,
        954,
    ),
)

FALSE_ALARM: Final = Figure(0.01, EVIDENCE, "at most 1 % false alarms in 1,000 audits")
AUDITS_OF_A_TEST: Final = 1000

REFUSED: Final = Figure(1e-4, EVIDENCE, "| target | 1e-4 false alarms a chunk at 95 % confidence |")
"""Of honest chunks, as bounds are calibrated for."""
