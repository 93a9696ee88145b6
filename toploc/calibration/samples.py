"""Chunks of stored answers with the verifier's own view of them: what thresholds are taken from and tried on."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from ..checks.prompt import check_prompt
from ..engine import Facts
from ..errors import MalformedEvidence, MalformedProof, ToplocError
from ..evidence.file import items
from ..evidence.parse import parse_evidence
from ..proofs.field import evaluate
from ..proofs.format import decode_proof
from ..proofs.verdict import verify_points
from ..report import Check
from .step import largest_logit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..engine import Engine
    from ..evidence.evidence import Answer, Evidence
    from ..proofs.format import Proof
    from ..proofs.verdict import ChunkVerdict
    from ..thresholds.bounds import Thresholds
    from ..verifier.transformers import TransformersVerifier


@dataclass(frozen=True, slots=True)
class Sample:
    """One chunk of an answer: its proof, and the verifier's own top-k points, integer[k] and uint16[k].

    `answer` numbers the answers; `text` is the same for chunks that agree in prompt and all tokens up to their end.
    `engine` is the prover's word on its own. `logit`: the largest of the answer, 0 where the verifier has none.
    """

    answer: int
    text: str
    rows: int
    proof: Proof
    indices: NDArray[np.int32]
    patterns: NDArray[np.uint16]
    engine: Engine | None = None
    logit: float = 0.0

    @property
    def claimed(self) -> NDArray[np.uint16]:
        """Patterns uint16[k] that the proof has at the verifier's points."""
        return evaluate(self.proof.coefficients, (self.indices % self.proof.modulus).astype(np.uint16))

    def judge(self, proof: Proof, thresholds: Thresholds, secret: bytes = b"") -> ChunkVerdict:
        """The verdict on `proof` as the proof of this chunk."""
        points = self.indices, self.patterns
        return verify_points(
            proof, *points, dtype=thresholds.dtype, rows=self.rows, thresholds=thresholds, secret=secret
        )

    def passes(self, thresholds: Thresholds) -> bool:
        """Whether the chunk's own proof does."""
        return self.judge(self.proof, thresholds).passed


def samples_of(
    path: Path,
    verifier: TransformersVerifier,
    *,
    strict: bool = True,
    progress: Callable[[], object] = lambda: None,
) -> list[Sample]:
    """Every chunk of the evidence at `path`, in order, by one prefill an answer.

    `strict`: the server answered the request's own prompt; a copy may have another template. `progress` is called after
    each line. Raises ToplocError naming the line that cannot be used.
    """
    samples: list[Sample] = []
    answers = 0
    with path.open("rb") as stream:
        for line, data in items(stream):
            try:
                evidence = parse_evidence(data, verifier.prefill.sampling_defaults)
                if evidence.proofs.error is not None:
                    raise ToplocError(f"no proofs: {evidence.proofs.error.code}")
                for answer in evidence.answers:
                    samples += samples_of_answer(evidence, answer, answers, verifier, strict=strict)
                    answers += 1
            except (MalformedEvidence, MalformedProof, ToplocError) as error:
                raise ToplocError(f"{path}:{line}: {error}") from None
            progress()
    if not samples:
        raise ToplocError(f"{path}: no answers with proofs")
    return samples


def engine_of(samples: Sequence[Sample]) -> Facts:
    """What all answers say of their engine, and do not say; no fact where they say nothing at all.

    Raises ToplocError if they differ.
    """
    engines = {sample.engine for sample in samples}
    if len(engines) > 1:
        said = " and by ".join(sorted(str(engine or "one that they do not name") for engine in engines))
        raise ToplocError(f"the honest answers are by {said}: give those of one engine")
    [engine] = engines
    return Facts() if engine is None else Facts(**{name: getattr(engine, name) for name in Facts.model_fields})


def samples_of_answer(
    evidence: Evidence, answer: Answer, number: int, verifier: TransformersVerifier, *, strict: bool = True
) -> list[Sample]:
    """As `samples_of` does, of one answer, which is given this number. Raises ToplocError where it cannot be used."""
    computed = verifier.compute(evidence, answer)
    if isinstance(computed, Check):
        raise ToplocError(computed.message)
    prompt = check_prompt(answer, computed.prompt)
    if strict and prompt.status != "passed":
        raise ToplocError(prompt.message)
    if evidence.proofs.dtype != computed.dtype:
        raise ToplocError(f"proofs of {evidence.proofs.dtype}, the states are {computed.dtype}; see --dtype")
    proofs = [decode_proof(proof) for proof in answer.proofs.proofs or ()]
    points = computed.points
    if len(proofs) != len(points.rows):
        raise ToplocError(f"{len(proofs)} proofs for {len(points.rows)} chunks")
    samples = []
    logit = largest_logit(() if computed.scores is None else [computed.scores])
    tokens = 0
    for proof, rows, indices, patterns in zip(proofs, points.rows, points.indices, points.patterns, strict=True):
        tokens += rows
        text = repr((computed.prompt, answer.token_ids[:tokens]))
        digest, engine = sha256(text.encode()).hexdigest(), evidence.proofs.engine
        samples.append(Sample(number, digest, rows, proof, indices, patterns, engine, logit))
    return samples
