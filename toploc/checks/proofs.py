"""Did these weights compute the hidden states of these tokens?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MalformedProof
from ..proofs.format import decode_proof
from ..proofs.verdict import verify_chunks
from ..protocol import num_chunks
from ..report import Check, quote
from ..scheme import CHUNK_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Answer
    from ..proofs.chunks import Points
    from ..proofs.verdict import ChunkVerdict
    from ..thresholds.bounds import Bounds, Thresholds

DESCRIBED = 3
"""Failed chunks that the message describes; the figures have all of them."""

MOST_IMPOSTORS = 0.05
"""The share of other answers' proofs that thresholds may accept for a proof to show anything."""

WORDS = {
    "mismatches": "mismatches",
    "mantissa_mean": "mantissa mean",
    "mantissa_median": "mantissa median",
    "decoy_hits": "decoy hits",
}


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
    4. Every chunk's figures are within their bounds (`verify_chunks`).
    5. Such proofs tell answers of the model apart, where the thresholds' impostor rate was measured.

    `decode` gives the text of a chunk's tokens for the message. Reasons: `no_proofs`, `dtype`,
    `malformed_proof.` and what `MalformedProof.reason` says, `not_computed`, `activations`,
    `impostor_rate`.
    """

    def result(status: str, reason: str | None, message: str, **figures: JsonValue) -> Check:
        return Check.model_validate(
            {
                "name": "proofs",
                "status": status,
                "choice": answer.index,
                "reason": reason,
                "message": message,
                "figures": figures,
                "thresholds": {
                    "name": thresholds.name,
                    "provenance": thresholds.provenance,
                    "impostor_rate": thresholds.impostor_rate,
                },
            }
        )

    made = answer.proofs
    if made.proofs is None:  # 1
        code, message = (made.error.code, made.error.message) if made.error else ("unknown", "")
        return result("skipped", "no_proofs", f"the server made no proofs: {quote(message)}", code=code[:40])
    if claimed_dtype != dtype or thresholds.dtype != dtype:
        message = f"proofs of {claimed_dtype} with thresholds for {thresholds.dtype}; the verifier's states are {dtype}"
        return result("error", "dtype", message)
    try:  # 2
        if len(made.proofs) != num_chunks(len(answer.token_ids)):
            message = f"{len(made.proofs)} proofs for {len(answer.token_ids)} tokens, which have "
            raise MalformedProof("count", f"{message}{num_chunks(len(answer.token_ids))} chunks")
        proofs = []
        for number, proof in enumerate(made.proofs):
            try:
                proofs.append(decode_proof(proof))
            except MalformedProof as error:
                raise MalformedProof(error.reason, f"the proof of chunk {number} is malformed: {error}") from None
        if points is None:  # 3
            return result("skipped", "not_computed", "the verifier has no hidden states for this prompt and answer")
        verdict = verify_chunks(proofs, points, dtype=dtype, thresholds=thresholds, secret=secret)  # 4
    except MalformedProof as error:
        return result("error", f"malformed_proof.{error.reason}", str(error))
    figures: list[JsonValue] = [_figures(chunk, rows) for chunk, rows in zip(verdict.chunks, points.rows, strict=True)]
    failed = [number for number, chunk in enumerate(verdict.chunks) if not chunk.passed]
    if not failed and (thresholds.impostor_rate or 0) > MOST_IMPOSTORS:  # 5
        message = (
            f"with these thresholds {thresholds.impostor_rate:.1%} of other answers' proofs pass, so they show nothing"
        )
        return result("skipped", "impostor_rate", message, chunks=figures)
    if not failed:
        worst = max(chunk.mismatches for chunk in verdict.chunks)
        message = f"all {len(proofs)} chunks of {len(answer.token_ids)} tokens agree, at most {worst} mismatches"
        return result("passed", None, message, chunks=figures)
    described = [_describe(number, verdict.chunks[number], answer, decode) for number in failed[:DESCRIBED]]
    rest = [f"and {len(failed) - DESCRIBED} more"] if len(failed) > DESCRIBED else []
    message = f"{len(failed)} of {len(proofs)} chunks have other activations: {'; '.join([*described, *rest])}"
    return result("failed", "activations", message, chunks=figures)


def _describe(number: int, chunk: ChunkVerdict, answer: Answer, decode: Callable[[Sequence[int]], str]) -> str:
    first = number * CHUNK_SIZE
    tokens = answer.token_ids[first : first + CHUNK_SIZE]
    where = f"chunk {number}, tokens {first}-{first + len(tokens) - 1}, {quote(decode(tokens))}"
    why = [
        f"{getattr(chunk, reason):.4g} {WORDS[reason]}, at most {getattr(chunk.bounds, reason):g} allowed"
        if reason in WORDS
        else "the verifier's own states are not finite"
        for reason in chunk.reasons
    ]
    return f"{where}: {', '.join(why)}"


def _figures(chunk: ChunkVerdict, rows: int) -> JsonValue:
    return {
        "rows": rows,
        "mismatches": chunk.mismatches,
        "exponent_mismatches": chunk.exponent_mismatches,
        "mantissa_mean": chunk.mantissa_mean,
        "mantissa_median": chunk.mantissa_median,
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
