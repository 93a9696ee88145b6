"""Transformers as a prover, decoding step by step with a cache, and as a verifier, by one prefill."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from questions import Answer
from torch.nn.attention import SDPBackend, sdpa_kernel

from toploc.proofs.builder import ProofBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from questions import Question

ATTENTIONS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa": None,
}
"""Kernels of torch's scaled dot-product attention, and eager beside them. `sdpa` takes what torch chooses."""

BATCH_TOKENS = 2**15
"""Tokens of a verifier's batch, padding included."""


class TransformersEngine:
    """A model in a dtype on a device."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: str, device: str, dtype: torch.dtype = torch.bfloat16) -> TransformersEngine:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").to(device)
        return cls(model, AutoTokenizer.from_pretrained(folder))

    def weights(self) -> dict[str, torch.Tensor]:
        """By name, shared tensors once."""
        return {name: parameter.data for name, parameter in self.model.named_parameters()}

    def replace(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        own = self.weights()
        for name, weight in weights:
            own[name].copy_(weight)

    @torch.inference_mode()
    def generate(self, questions: Sequence[Question], tokens: int, seed: int = 0) -> list[Answer]:
        """Answers of so many tokens, all questions in one batch."""
        device = self.model.device
        longest = max(len(q.asked) for q in questions)
        ids = torch.zeros(len(questions), longest, dtype=torch.long)
        mask = torch.zeros(len(questions), longest + tokens, dtype=torch.long)
        for row, question in enumerate(questions):
            ids[row, longest - len(question.asked) :] = torch.tensor(question.asked)
            mask[row, longest - len(question.asked) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        hot = torch.tensor([q.temperature > 0 for q in questions], device=device)
        generator = torch.Generator(device).manual_seed(seed)
        cache, states, chosen = None, [], []
        step, width = ids, longest
        for _ in range(tokens):
            out = self.model.base_model(
                input_ids=step,
                attention_mask=mask[:, :width],
                position_ids=positions[:, width - step.shape[1] : width],
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            state = out.last_hidden_state[:, -1]
            logits = self.model.lm_head(state).float()
            sampled = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            step = torch.where(hot, sampled, logits.argmax(-1))[:, None]
            states.append(state)
            chosen.append(step[:, 0])
            width += 1
        rows = torch.stack(states, 1)
        texts = torch.stack(chosen, 1).tolist()
        return [
            Answer(question.prompt, text, prove(row))
            for question, text, row in zip(questions, texts, rows, strict=True)
        ]

    @torch.inference_mode()
    def states(self, pairs: Sequence[tuple[list[int], list[int]]], attention: str = "sdpa") -> list[torch.Tensor]:
        """The states [tokens, hidden] that each answer's tokens came from, given the user's prompt.

        Answers go in batches, padded at the right, where causal attention does not look.
        """
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        found: dict[int, torch.Tensor] = {}
        with self._attention(attention):
            while order:
                width = len(pairs[order[0]][0]) + len(pairs[order[0]][1]) - 1
                batch, order = order[: max(1, BATCH_TOKENS // width)], order[max(1, BATCH_TOKENS // width) :]
                ids = torch.zeros(len(batch), width, dtype=torch.long)
                for row, place in enumerate(batch):
                    prompt, token_ids = pairs[place]
                    whole = [*prompt, *token_ids[:-1]]
                    ids[row, : len(whole)] = torch.tensor(whole)
                out = self.model.base_model(input_ids=ids.to(self.model.device), use_cache=False).last_hidden_state
                for row, place in enumerate(batch):
                    prompt, token_ids = pairs[place]
                    found[place] = out[row, len(prompt) - 1 : len(prompt) - 1 + len(token_ids)]
        return [found[place] for place in range(len(pairs))]

    @contextmanager
    def _attention(self, name: str) -> Iterator[None]:
        if name == "eager":
            self.model.set_attn_implementation("eager")
            try:
                yield
            finally:
                self.model.set_attn_implementation("sdpa")
            return
        backend = ATTENTIONS[name]
        with nullcontext() if backend is None else sdpa_kernel(backend):
            yield

    @contextmanager
    def split_over(self, ranks: int) -> Iterator[None]:
        """Sums of row-parallel layers as tensor parallelism makes them: a part for each rank, in the model's dtype."""
        hooks = []

        def split(module: torch.nn.Linear, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
            parts = zip(inputs[0].chunk(ranks, -1), module.weight.chunk(ranks, 1), strict=True)
            first, *others = (torch.nn.functional.linear(x.contiguous(), w.contiguous()) for x, w in parts)
            for other in others:
                first = first + other
            return first

        for name, module in self.model.named_modules():
            if name.endswith(("o_proj", "down_proj")):
                hooks.append(module.register_forward_hook(split))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def prove(states: torch.Tensor) -> list[bytes]:
    """The proofs of an answer's states [tokens, hidden]; float32 and float16 are rounded to bfloat16."""
    builder = ProofBuilder()
    return [*builder.append(states.to(torch.bfloat16)), *builder.finish()]
