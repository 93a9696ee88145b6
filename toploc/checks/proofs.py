"""Did these weights compute the hidden states of these tokens?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import MalformedProof
from ..foreign import quote
from ..proofs.chunks import Points
from ..proofs.format import decode_proof
from ..proofs.verdict import verify_chunks
from ..protocol import num_chunks
from ..report import Check
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Answer
    from ..proofs.format import Proof
    from ..proofs.verdict import ChunkVerdict, Verdict
    from ..protocol import WeightSpan
    from ..report import Status
    from ..thresholds.bounds import Bounds, Thresholds

DESCRIBED: Final = 3
"""Failed chunks that the message describes; the figures have all of them."""

MOST_IMPOSTORS: Final = 0.05
"""The share of other answers' proofs that thresholds may accept for a proof to show anything."""

WORDS: Final = {
    "mismatches": "mismatches",
    "mantissa_mean": "mantissa mean",
    "mantissa_median": "mantissa median",
    "decoy_hits": "decoy hits",
}
"""The reasons of a chunk's verdict that are figures, as the message has them."""


def check_proofs(
    answer: Answer,
    claimed_dtype: str,
    points: Points | None,
    dtype: str,
    thresholds: Thresholds,
    *,
    decode: Callable[[Sequence[int]], str],
    secret: bytes = b"",
) -> Check:
    """Hold every chunk's proof against the verifier's own top-k points of that chunk.

    1. The answer has proofs, in the dtype that the verifier's states have and its thresholds are for.
    2. There is one for every 32 tokens begun, and each decodes (`decode_proof`); otherwise it is malformed.
    3. The verifier has states for the tokens.
    4. One version of the weights made the answer. Of several, the chunks of the first are compared, since the keys and
       values that the later ones read are those of no version. Which one the verifier holds it cannot know, so nothing
       follows from that.
    5. Every chunk's figures are within their bounds (`verify_chunks`).
    6. Such proofs tell answers of the model apart, where the thresholds' impostor rate was measured.

    `decode` gives the text of a chunk's tokens for the message. Reasons: `no_proofs`, `dtype`,
    `malformed_proof.` and what `MalformedProof.reason` says, `not_computed`, `weights_changed`, `activations`,
    `impostor_rate`.
    """
    held = _Held(answer, thresholds, decode)
    incomparable = _incomparable(held, claimed_dtype, dtype)  # 1
    if incomparable is not None:
        return incomparable
    try:
        proofs = _decoded(answer)  # 2
        if points is None:  # 3
            return held.check(
                "undecided", "not_computed", "the verifier has no hidden states for this prompt and answer"
            )
        spans = answer.proofs.weights or ()
        if answer.proofs.spans_weights:  # 4
            alone = spans[0].end // CHUNK_SIZE
            first = Points(points.indices[:alone], points.patterns[:alone], points.rows[:alone])
            verdict = verify_chunks(proofs[:alone], first, dtype=dtype, thresholds=thresholds, secret=secret)
            return _of_several_weights(held, spans, verdict, first.rows)
        verdict = verify_chunks(proofs, points, dtype=dtype, thresholds=thresholds, secret=secret)
    except MalformedProof as error:
        return held.check("failed", f"malformed_proof.{error.reason}", str(error))
    figures: list[JsonValue] = [_figures(chunk, rows) for chunk, rows in zip(verdict.chunks, points.rows, strict=True)]
    return (
        _other_activations(held, verdict, figures)  # 5
        or _without_power(held, figures)  # 6
        or _agree(held, verdict, figures)
    )


def check_form(answer: Answer) -> Check | None:
    """Whether the proofs are malformed, for which nothing has to be computed; None if they are not."""
    if answer.proofs.proofs is None:
        return None
    try:
        _decoded(answer)
    except MalformedProof as error:
        reason = f"malformed_proof.{error.reason}"
        return Check(name="proofs", status="failed", choice=answer.index, reason=reason, message=str(error))
    return None


@dataclass(frozen=True, slots=True)
class _Held:
    """The answer whose proofs are held against thresholds."""

    answer: Answer
    thresholds: Thresholds
    decode: Callable[[Sequence[int]], str]

    def check(
        self,
        status: Status,
        reason: str | None,
        message: str,
        details: tuple[str, ...] = (),
        **figures: JsonValue,
    ) -> Check:
        return Check(
            name="proofs",
            status=status,
            choice=self.answer.index,
            reason=reason,
            message=message,
            details=details,
            figures=figures,
            thresholds={
                "name": self.thresholds.name,
                "provenance": self.thresholds.provenance,
                "impostor_rate": self.thresholds.impostor_rate,
            },
        )


def _incomparable(held: _Held, claimed_dtype: str, dtype: str) -> Check | None:
    choice, thresholds = held.answer.proofs, held.thresholds
    if choice.proofs is None:
        code, message = (choice.error.code, choice.error.message) if choice.error else ("unknown", "")
        return held.check("undecided", "no_proofs", f"the server made no proofs: {quote(message)}", code=code[:40])
    if claimed_dtype != dtype or thresholds.dtype != dtype:
        message = f"proofs of {claimed_dtype} with thresholds for {thresholds.dtype}; the verifier's states are {dtype}"
        return held.check("undecided", "dtype", message)
    return None


def _decoded(answer: Answer) -> list[Proof]:
    """Raises MalformedProof."""
    encoded, tokens = answer.proofs.proofs or (), len(answer.token_ids)
    if len(encoded) != num_chunks(tokens):
        message = f"{len(encoded)} proofs for {tokens} tokens, which have {num_chunks(tokens)} chunks"
        raise MalformedProof("count", message)
    proofs = []
    for number, proof in enumerate(encoded):
        try:
            proofs.append(decode_proof(proof))
        except MalformedProof as error:
            raise MalformedProof(error.reason, f"the proof of chunk {number} is malformed: {error}") from None
    return proofs


def _other_activations(held: _Held, verdict: Verdict, figures: list[JsonValue]) -> Check | None:
    failed = [number for number, chunk in enumerate(verdict.chunks) if not chunk.passed]
    if not failed:
        return None
    described = [_describe(number, verdict.chunks[number], held) for number in failed[:DESCRIBED]]
    rest = [f"and {len(failed) - DESCRIBED} more"] if len(failed) > DESCRIBED else []
    message = f"{len(failed)} of {len(figures)} chunks have other activations"
    return held.check("failed", "activations", message, (*described, *rest), chunks=figures)


def _of_several_weights(held: _Held, spans: Sequence[WeightSpan], verdict: Verdict, rows: Sequence[int]) -> Check:
    passed = sum(chunk.passed for chunk in verdict.chunks)
    told = ", ".join(
        f"{span.start}-{span.end - 1} by version {span.version}" for span in spans if span.end > span.start
    )
    message = (
        f"other weights were loaded while it was made: tokens {told}; of the {len(rows)} chunks that the first made "
        f"alone, {passed} agree with this verifier's weights"
    )
    figures: list[JsonValue] = [_figures(chunk, count) for chunk, count in zip(verdict.chunks, rows, strict=True)]
    listed: list[JsonValue] = [span.model_dump() for span in spans]
    return held.check("undecided", "weights_changed", message, weights=listed, chunks=figures)


def _without_power(held: _Held, figures: list[JsonValue]) -> Check | None:
    rate = held.thresholds.impostor_rate or 0
    if rate <= MOST_IMPOSTORS:
        return None
    message = f"with these thresholds {rate:.1%} of other answers' proofs pass, so they show nothing"
    return held.check("undecided", "impostor_rate", message, chunks=figures)


def _agree(held: _Held, verdict: Verdict, figures: list[JsonValue]) -> Check:
    worst = max(chunk.mismatches for chunk in verdict.chunks)
    tokens = len(held.answer.token_ids)
    message = f"all {len(figures)} chunks of {tokens} tokens agree, at most {worst} mismatches"
    return held.check("passed", None, message, chunks=figures)


def _describe(number: int, chunk: ChunkVerdict, held: _Held) -> str:
    first = number * CHUNK_SIZE
    tokens = held.answer.token_ids[first : first + CHUNK_SIZE]
    where = f"chunk {number}, tokens {first}-{first + len(tokens) - 1}, {quote(held.decode(tokens))}"
    why = [
        f"{getattr(chunk, reason):.4g} {WORDS[reason]}, at most {getattr(chunk.bounds, reason):g} allowed"
        if reason in WORDS
        else "the verifier's own states are not finite"
        for reason in chunk.reasons
    ]
    return f"{where}: {', '.join(why)}"


def _figures(chunk: ChunkVerdict, rows: int) -> JsonValue:
    by_channel: dict[str, JsonValue] = {} if chunk.channel_error is None else {"channel_error": chunk.channel_error}
    return {
        "rows": rows,
        "mismatches": chunk.mismatches,
        "exponent_mismatches": chunk.exponent_mismatches,
        "mantissa_mean": chunk.mantissa_mean,
        "mantissa_median": chunk.mantissa_median,
        **by_channel,
        "decoy_hits": chunk.decoy_hits,
        "passed": chunk.passed,
        "bounds": _bounds(chunk.bounds),
    }


def _bounds(bounds: Bounds) -> JsonValue:
    return {
        "mismatches": bounds.mismatches,
        "mantissa_mean": bounds.mantissa_mean,
        "mantissa_median": bounds.mantissa_median,
        "decoy_hits": bounds.decoy_hits,
    }
