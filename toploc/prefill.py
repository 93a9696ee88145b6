"""The verifier's hidden states from Hugging Face transformers: an engine that shares no code with vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class TransformersPrefill:
    """A causal language model, run once over a whole answer.

    Args:
        model: a local path or a hub name.
        dtype: of the weights; the model's own by default.
        device: where it runs.
        attention: transformers' `attn_implementation`: sdpa, eager, flash_attention_2, flex_attention.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        attention: str = "sdpa",
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype or "auto", attn_implementation=attention
        ).to(device)
        self._model.eval()

    def render(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """A chat's prompt as token ids, by the model's own chat template."""
        ids = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False, **template
        )
        return [int(i) for i in ids]

    @torch.inference_mode()
    def hidden_states(self, prompt: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
        """Output of the final norm at the positions that produced `token_ids`, [len(token_ids), hidden].

        The model reads the prompt and all tokens but the last; row i is the state that token i was sampled from.
        """
        inputs = torch.tensor([[*prompt, *token_ids[:-1]]], device=self._model.device)
        # The base model ends with its final norm; the language model head is not needed.
        states: torch.Tensor = self._model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[0]
        return states[len(prompt) - 1 :].cpu()
