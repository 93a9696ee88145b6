"""Proofs made without the computation, and how many of them thresholds accept: whether proofs of a model say anything.

On ordinary activations none passes. Where a few channels of nearly constant values make up the top-k, the proof of
another answer passes, and one can be forged from a few answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from ..proofs.field import PRIME
from ..proofs.format import Proof, encode_points
from ..scheme import TOPK
from .rate import Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..thresholds.bounds import Thresholds
    from .samples import Sample

PAIRS: Final = 2000
"""Of each kind: with none accepted, the rate is below 0.18 % (95 %)."""

KNOWN: Final = 16
"""Chunks of other answers that a forger has seen."""


def impostors(samples: Sequence[Sample], thresholds: Thresholds, confidence: float = 0.95) -> dict[str, Rate]:
    """Of each kind, the proofs that pass as those of chunks whose activations their maker did not compute.

    `other answers`: the proof of a chunk of as many rows of another answer. `constant`: the polynomial that has the
    median pattern of other answers everywhere. `usual places`: the points that other answers have most often, which
    is what a forger can know where a few channels dominate. Chunks that agree in prompt and all tokens with the one
    in question are not other: every honest prover proves them alike.
    """
    random = np.random.default_rng(0)
    # Unknown to a prover, as a verifier's is; fixed, so that a calibration can be repeated.
    secret = random.bytes(16)
    makers = {"other answers": _replayed, "constant": _constant, "usual places": _usual}
    passed: Counter[str] = Counter()
    tried = 0
    by_rows: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_rows[sample.rows].append(sample)
    for _ in range(PAIRS):
        sample = samples[int(random.integers(len(samples)))]
        alike = by_rows[sample.rows]
        drawn = [alike[i] for i in random.integers(len(alike), size=4 * KNOWN)]
        known = [o for o in drawn if o.answer != sample.answer and o.text != sample.text][:KNOWN]
        if not known:
            continue
        tried += 1
        for name, make in makers.items():
            passed[name] += sample.judge(make(known), thresholds, secret).passed
    return {name: Rate.of(passed[name], tried, confidence) for name in makers}


def _replayed(known: Sequence[Sample]) -> Proof:
    return known[0].proof


def _constant(known: Sequence[Sample]) -> Proof:
    value = int(np.median(np.concatenate([sample.patterns & 0x7FFF for sample in known])))
    return Proof(np.array([PRIME, value, *[0] * (TOPK - 1)], ">u2").tobytes())


def _usual(known: Sequence[Sample]) -> Proof:
    seen: defaultdict[int, list[int]] = defaultdict(list)
    for sample in known:
        for index, pattern in zip(sample.indices.tolist(), sample.patterns.tolist(), strict=True):
            seen[index].append(pattern)
    usual = sorted(seen, key=lambda index: (-len(seen[index]), index))[:TOPK]
    patterns = [sorted(seen[index])[len(seen[index]) // 2] for index in usual]
    return Proof(encode_points(np.array(usual, np.int32), np.array(patterns, np.uint16)))
