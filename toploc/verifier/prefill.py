"""The verifier's own computation by Hugging Face transformers: an engine that shares no code with vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from ..engine import Engine
from ..errors import ToplocError
from .rendering import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LOGITS_ROWS: Final = 32
"""Rows of logits held at once; 512 tokens of a vocabulary of 128,000 would be 260 MB."""

PROBE_TOKENS: Final = 8
"""On which `has_logits` is tried."""


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
        self._has_logits: bool | None = None

    @property
    def engine(self) -> Engine:
        """What computes here."""
        import transformers

        device, config = self._model.device, self._model.config
        return Engine.of(
            "transformers",
            transformers.__version__,
            attention=str(getattr(config, "_attn_implementation", "") or ""),
            device=torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
        )

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: a token id has to be below."""
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def context_length(self) -> int | None:
        """The most tokens that the model was made for, where its configuration says."""
        length = getattr(self._model.config, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def hidden_size(self) -> int:
        """Channels of its states."""
        return int(self._model.config.get_text_config().hidden_size)

    @property
    def proof_dtype(self) -> str:
        """The dtype of proofs of the model's states."""
        return "float16" if self._model.dtype == torch.float16 else "bfloat16"

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """What ends an answer, by the model's generation_config.json and its tokenizer."""
        ids = self._model.generation_config.eos_token_id
        listed = ids if isinstance(ids, list) else [ids]
        return frozenset(int(i) for i in (*listed, self.tokenizer.eos_token_id) if i is not None)

    @property
    def sampling_defaults(self) -> dict[str, float | int]:
        """Sampling options that the model's generation_config.json sets, which vLLM takes for its defaults."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        given = self._model.generation_config.to_diff_dict()
        return {name: given[name] for name in names if given.get(name) is not None}

    @property
    def end(self) -> int | None:
        """See `evidence.tokenised.Tokenizer`."""
        ends = self.eos_token_ids
        return next(iter(ends)) if len(ends) == 1 else None

    def encode(self, text: str, /) -> list[int]:
        """See `evidence.tokenised.Tokenizer`."""
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool, /) -> str:
        """See `evidence.tokenised.Tokenizer`."""
        text: str = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def render(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """See `rendering.render`."""
        return render(self.tokenizer, messages, **template)

    def hidden_states(self, prompt: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
        """Output of the final norm at the positions that produced `token_ids`, [len(token_ids), hidden].

        The model reads the prompt and all tokens but the last; row i is the state that token i was sampled from.
        """
        return self.states(prompt, token_ids).cpu()

    @torch.inference_mode()
    def states(self, prompt: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
        """`hidden_states` where the model is, for `logits`."""
        inputs = torch.tensor([[*prompt, *token_ids[:-1]]], device=self._model.device)
        # The base model ends with its final norm; the language model head is not needed.
        states: torch.Tensor = self._model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[0]
        return states[len(prompt) - 1 :]

    @property
    def has_logits(self) -> bool:
        """Whether `logits` are the model's own. A model may do more to them than to apply its output embedding.

        Tried once, on a few tokens: scaling and soft caps differ from model to model, and show here.
        """
        if self._has_logits is None:
            self._has_logits = self._probe()
        return self._has_logits

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of `states`, [rows, vocabulary] for `LOGITS_ROWS` rows at a time, in the model's dtype."""
        head = self._model.get_output_embeddings()
        for first in range(0, len(states), LOGITS_ROWS):
            logits: torch.Tensor = head(states[first : first + LOGITS_ROWS])
            yield logits

    @torch.inference_mode()
    def _probe(self) -> bool:
        if self._model.get_output_embeddings() is None:
            return False
        tokens = list(range(min(PROBE_TOKENS, self.vocab_size)))
        own = next(self.logits(self.states(tokens[:1], [*tokens[1:], 0])))
        inputs = torch.tensor([tokens], device=self._model.device)
        theirs = self._model(input_ids=inputs, use_cache=False).logits[0]
        return own.shape == theirs.shape and torch.allclose(own.float(), theirs.float(), rtol=0.02, atol=0.05)


def load_prefill(model: str, dtype: str | None, device: str, attention: str = "sdpa") -> TransformersPrefill:
    """A model on this machine, without progress bars. Raises ToplocError, in a line, where it cannot be loaded."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from .prefill import TransformersPrefill

    disable_progress_bar()
    try:
        kind = getattr(torch, dtype) if dtype else None
        return TransformersPrefill(model, dtype=kind, device=device, attention=attention)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise ToplocError(f"{model}: cannot be loaded: {str(error).splitlines()[0]}") from None
