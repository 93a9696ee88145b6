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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from ..evidence.evidence import Answer, Evidence
    from ..proofs.chunks import Points
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

    Raises InvalidThresholds for some that are for states of another size.
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
        thresholds = thresholds or Thresholds.paper(self.prefill.proof_dtype)
        thresholds.require_hidden_size(self.prefill.hidden_size)
        self.policy = Policy(
            names=tuple(names),
            thresholds=thresholds,
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
        if not evidence.proofless:
            return self._report(evidence, [self.compute(evidence, answer) for answer in evidence.answers])
        variants = swept(evidence, knows_defaults=True)
        under = [variant.evidence for variant in variants]
        by_answer = [self._computed(under, answer) for answer in evidence.answers]
        reports = [
            self._report(variant.evidence, [computed[place] for computed in by_answer])
            for place, variant in enumerate(variants)
        ]
        return best_of_variants(list(zip(variants, reports, strict=True)))

    def _report(self, evidence: Evidence, computed: Sequence[Computed | Check]) -> Report:
        names = tuple(self.policy.names)
        return judge(evidence.under_one_name(names) if names else evidence, self.policy, computed)

    def compute(self, evidence: Evidence, answer: Answer) -> Computed | Check:
        """What the checks need of one choice, or why there is nothing.

        0. Its tokens are known.
        1. Render the request's prompt (`prompt_of`).
        2. The model can be run over prompt and answer (`beyond_the_model`).
        3. One forward pass; top-k of its states, and the scores of its logits.
        """
        [computed] = self._computed([evidence], answer)
        return computed

    def _computed(self, variants: Sequence[Evidence], answer: Answer) -> list[Computed | Check]:
        """See `compute`; of evidence that differs in options alone, which a forward pass does not depend on."""
        prefilled = self._prefilled(variants[0], answer)
        if isinstance(prefilled, Check):
            return [prefilled] * len(variants)
        prompt, states, points = prefilled
        return [*self._scored_under(variants, answer, prompt, states, points)]

    def _prefilled(self, evidence: Evidence, answer: Answer) -> tuple[tuple[int, ...], Tensor, Points] | Check:
        """The prompt, the states of the answer's tokens, and their top-k."""
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
            return tuple(prompt), states, state_points(states, TOPK)
        except InvalidActivations as error:
            return not_computable(answer, "proofs", "activations_invalid", str(error))

    def _scored_under(
        self, variants: Sequence[Evidence], answer: Answer, prompt: tuple[int, ...], states: Tensor, points: Points
    ) -> Iterator[Computed]:
        """Logits are computed anew for each use, a few rows at a time: all of them would be gigabytes."""
        has_logits, eos_token_ids = self.prefill.has_logits, self.prefill.eos_token_ids
        logprobs = None
        if has_logits and variants[0].proofless and variants[0].tokenised[answer.index].logprobs is not None:
            found = token_logprobs(self.prefill.logits(states), answer.token_ids, 0)
            logprobs = found.values[:, 0].astype(np.float64)
        for evidence in variants:
            scores, sampling = None, evidence.sampling_of(answer)
            if self._scored and has_logits and not sampling.other:
                logits = self.prefill.logits(states)
                scores = score_tokens(logits, prompt, answer.token_ids, sampling, eos_token_ids)
            yield Computed(prompt, points, proof_dtype(states)[0], scores, logprobs=logprobs)
