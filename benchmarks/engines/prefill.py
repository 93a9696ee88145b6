"""Prefills of several answers at once, by transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from collections.abc import Sequence


class Prefill(TransformersPrefill):
    """Causal models alone."""

    @torch.inference_mode()
    def of(self, evidence: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
        """The states of each answer, [tokens, hidden].

        Rows are filled up on the right, which nothing before reads under causal attention.
        """
        proofs = [one["response"]["toploc_proofs"] for one in evidence]
        prompts = [one["prompt"]["token_ids"] for one in proofs]
        rows = [
            torch.tensor([*prompt, *one["choices"][0]["token_ids"][:-1]])
            for prompt, one in zip(prompts, proofs, strict=True)
        ]
        inputs = pad_sequence(rows, batch_first=True).to(self._model.device)
        states = self._model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        return [
            answer[len(prompt) - 1 : len(row)].cpu() for answer, prompt, row in zip(states, prompts, rows, strict=True)
        ]
