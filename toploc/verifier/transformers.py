"""A verifier without vLLM: one prefill by Hugging Face transformers for each choice, and the checks on it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from ..checks.prompt import reads_clock
from ..errors import InvalidActivations, MalformedEvidence
from ..evidence.parse import parse_evidence
from ..proofs.chunks import proof_dtype, state_points
from ..report import Check, Report, malformed
from ..scheme import TOPK
from ..thresholds.bounds import Thresholds
from ..tokens.logprobs import token_logprobs
from ..tokens.scoring import score_tokens
from .judge import Computed, Policy, beyond_the_model, judge, not_computable
from .prefill import TransformersPrefill
from .rendering import prompt_of
from .swept import best_of_variants, swept

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..evidence.evidence import Answer, Evidence
    from ..receipts.keys import PublicKey


class TransformersVerifier:
    """Judges evidence by a model on this machine.

    Args:
        model: a local path or a hub name, or a prefill that is already there.
        names: all that the model is served under. Without any, answers under every name are held against it, and the
            report says which name that is.
        thresholds: the paper's for the dtype of the model's states by default.
        context_length: of the server, if it is known.
        trusted_keys: of the providers whose receipts count.
        scored: whether the check on tokens is done; without, it is skipped, and no logits are computed.
    """

    def __init__(
        self,
        model: str | Path | TransformersPrefill,
        *,
        names: Sequence[str] = (),
        thresholds: Thresholds | None = None,
        context_length: int | None = None,
        trusted_keys: Sequence[PublicKey] = (),
        scored: bool = True,
    ) -> None:
        self._scored = scored
        self.prefill = model if isinstance(model, TransformersPrefill) else TransformersPrefill(model)
        self.policy = Policy(
            names=tuple(names),
            thresholds=thresholds or Thresholds.paper(self.prefill.proof_dtype),
            decode=self.prefill.decode,
            eos_token_ids=self.prefill.eos_token_ids,
            context_length=context_length,
            secret=secrets.token_bytes(16),
            trusted_keys=trusted_keys,
            clock=reads_clock(self.prefill.tokenizer.chat_template),
            engine=self.prefill.engine,
        )

    def verify(self, data: bytes | str) -> Report:
        """The report on a JSON object of evidence; on what is none, a report of that."""
        try:
            evidence = parse_evidence(data, self.prefill.sampling_defaults, self.prefill)
        except MalformedEvidence as error:
            return malformed("malformed", str(error), error.field)
        return self.judge(evidence)

    def judge(self, evidence: Evidence) -> Report:
        """The report on parsed evidence; without proofs, under the variant of its options that finds least."""
        if evidence.proofless:
            variants = swept(evidence, knows_defaults=True)
            return best_of_variants([(variant, self._report(variant.evidence)) for variant in variants])
        return self._report(evidence)

    def _report(self, evidence: Evidence) -> Report:
        computed = [self.compute(evidence, answer) for answer in evidence.answers]
        names = tuple(self.policy.names)
        return judge(evidence.under_one_name(names) if names else evidence, self.policy, computed)

    def compute(self, evidence: Evidence, answer: Answer) -> Computed | Check:
        """What the checks need of one choice, or why there is nothing.

        0. Its tokens are known.
        1. Render the request's prompt (`prompt_of`).
        2. The model can be run over prompt and answer (`beyond_the_model`).
        3. One forward pass; top-k of its states, and the scores of its logits.
        """
        if not answer.token_ids:  # 0
            return not_computable(answer, "tokens", "token_ids", "its tokens are not known")
        prompt, token_ids = prompt_of(evidence, answer, self.prefill.tokenizer), answer.token_ids  # 1
        if isinstance(prompt, Check):
            return prompt
        beyond = beyond_the_model(  # 2
            answer, prompt, vocab_size=self.prefill.vocab_size, context_length=self.prefill.context_length
        )
        if beyond is not None:
            return beyond
        states = self.prefill.states(prompt, token_ids)  # 3
        try:
            points = state_points(states, TOPK)
        except InvalidActivations as error:
            return not_computable(answer, "proofs", "activations_invalid", str(error))
        scores = logprobs = None
        sampling = evidence.sampling_of(answer)
        if self._scored and self.prefill.has_logits and not sampling.other:
            logits = self.prefill.logits(states)
            scores = score_tokens(logits, prompt, token_ids, sampling, self.prefill.eos_token_ids)
        if self.prefill.has_logits and evidence.proofless and evidence.tokenised[answer.index].logprobs is not None:
            logprobs = token_logprobs(self.prefill.logits(states), token_ids, 0).values[:, 0].astype(np.float64)
        return Computed(tuple(prompt), points, proof_dtype(states)[0], scores, logprobs=logprobs)
