"""vLLM in this process, with the recorder of `toploc serve` in its worker: a prover, and a verifier by prefill."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

# Calls into the worker are functions of this module; the engine runs in this process.
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    "VLLM_PLUGINS": "toploc",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

import torch
from questions import Answer
from toploc_proxy.channel.tag import EXTRA_ARG, Tag
from toploc_proxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from questions import Question


class VllmEngine:
    """An engine of the model in `folder`; `options` are `LLM`'s."""

    def __init__(self, folder: str, **options: Any) -> None:
        from vllm import LLM

        self.settings = Settings(channel=tempfile.mkdtemp(dir="/tmp"), capture_ttl=600.0)
        self.settings.to_environ()
        began = time.monotonic()
        self.llm = LLM(folder, **{"max_model_len": 1024, "max_num_seqs": 256, **options})
        self.seconds_to_start = time.monotonic() - began

    def generate(self, questions: Sequence[Question], tokens: int, at_once: int, seed: int = 0) -> list[Answer]:
        """Answers of so many tokens with their proofs, `at_once` questions in the engine at a time."""
        from vllm import SamplingParams

        torch.manual_seed(seed)
        found = []
        for first in range(0, len(questions), at_once):
            batch = questions[first : first + at_once]
            tags = [Tag.new() for _ in batch]
            params = [
                SamplingParams(
                    max_tokens=tokens,
                    temperature=question.temperature,
                    ignore_eos=True,
                    detokenize=False,
                    extra_args={EXTRA_ARG: tag.seal(self.settings.secret)},
                )
                for question, tag in zip(batch, tags, strict=True)
            ]
            outputs = self.run([question.asked for question in batch], params)
            wanted = [
                (tag.nonce, [question.asked[-1], *ids[:-1]])
                for question, tag, ids in zip(batch, tags, outputs, strict=True)
            ]
            [proofs] = self.llm.collective_rpc(finalize, args=(wanted,))
            found += [Answer(q.prompt, ids, made) for q, ids, made in zip(batch, outputs, proofs, strict=True)]
        return found

    def states(self, pairs: Sequence[tuple[list[int], list[int]]], at_once: int = 64) -> list[torch.Tensor]:
        """What a verifier that is such an engine computes: one prefill for each answer, no prefix cache."""
        from vllm import SamplingParams

        found = []
        for first in range(0, len(pairs), at_once):
            batch = pairs[first : first + at_once]
            tags = [Tag.new(start=len(prompt) - 1) for prompt, _ in batch]
            params = [
                SamplingParams(
                    max_tokens=1,
                    temperature=0.0,
                    detokenize=False,
                    skip_reading_prefix_cache=True,
                    extra_args={EXTRA_ARG: tag.seal(self.settings.secret)},
                )
                for tag in tags
            ]
            self.run([[*prompt, *ids[:-1]] for prompt, ids in batch], params)
            wanted = [(tag.nonce, [prompt[-1], *ids[:-1]]) for tag, (prompt, ids) in zip(tags, batch, strict=True)]
            [states] = self.llm.collective_rpc(take, args=(wanted,))
            found += states
        return found

    def plain_prefill(self, prompts: Sequence[list[int]]) -> None:
        """Prefills without a verifier's tag, for comparison."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, skip_reading_prefix_cache=True)
        self.run(prompts, [params] * len(prompts))

    def replace(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Other weights, by their names in transformers, in the place of those that are there."""
        # Without a GPU the worker is a process of its own.
        self.llm.collective_rpc(load, args=(weights if torch.cuda.is_available() else list(weights),))
        self.llm.reset_prefix_cache()

    def call(self, function: Callable[[Any], object]) -> None:
        """Runs a function of the worker there."""
        self.llm.collective_rpc(function)

    @property
    def sampler(self) -> str | None:
        """Of `toploc_proofs.sampler`."""
        [name] = self.llm.collective_rpc(sampler)
        return name

    def run(self, prompts: Sequence[list[int]], params: list[Any]) -> list[list[int]]:
        """Token ids of an answer to each prompt."""
        outputs = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def sampler(worker: Any) -> str | None:
    """Runs in the worker: what draws the noise of seeded answers, by what it chooses."""
    from toploc_proxy.engines.vllm.sampler import name_sampler

    runner = worker.model_runner
    kind = "v2" if ".gpu." in type(runner).__module__ else "v1"
    return name_sampler(runner, kind, runner.vllm_config, runner.device)


def finalize(worker: Any, wanted: list[tuple[str, list[int]]]) -> list[list[bytes]]:
    """Runs in the worker: the proofs of answers, by nonce and the tokens that went in."""
    from toploc_proxy.channel.tag import Key

    recorder = worker.model_runner.toploc_worker._recorder
    outcomes: list[Any] = recorder.finalize_all([(Key(nonce, 0), inputs) for nonce, inputs in wanted])
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome.proofs for outcome in outcomes]


def take(worker: Any, wanted: list[tuple[str, list[int]]]) -> list[torch.Tensor]:
    """Runs in the worker: the states of prefills, by nonce and the tokens that went in."""
    prefills = worker.model_runner.toploc_worker._prefills
    return [prefills.take(nonce).states(inputs) for nonce, inputs in wanted]


@torch.inference_mode()
def load(worker: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Runs in the worker: a model's weights, one after another, into the parameters that vLLM has fused."""
    fused = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    targets: dict[str, tuple[torch.nn.Parameter, list[str]]] = {}
    for name, parameter in worker.get_model().named_parameters():
        kind = name.split(".")[-2]
        parts = [name.replace(kind, part) for part in fused.get(kind, (kind,))]
        targets |= dict.fromkeys(parts, (parameter, parts))
    given: dict[str, torch.Tensor] = {}
    for name, weight in weights:
        given[name] = weight
        parameter, parts = targets[name]
        if all(part in given for part in parts):
            value = torch.cat([given.pop(part) for part in parts])
            if value.shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(parameter.shape)} in vLLM, {tuple(value.shape)} in the weights")
            parameter.data.copy_(value)
            for part in parts:
                del targets[part]
    if targets:
        raise KeyError(f"no weights for {min(targets)}")
