"""Answers to canaries without proofs: by a real model, by altered copies, and by other ways to get them wrong.

    python benchmarks/unproven/texts.py FOLDER

By vLLM's own offline engine, many at once. Each row has what a provider that gives token ids and log-probabilities
would say; text alone is a part of it. Rows are kept, so that a run goes on where one ended.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

ROOT: Final = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from toploc_client.vendors.canaries import canary  # noqa: E402

from models import alter, fetch  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME: Final = "smollm2-135m-instruct"
SEED: Final = "benchmarks/unproven"
TOKENS: Final = 128
BATCH: Final = 32
"""Answers between two writes."""

HIDDEN: Final = "You are a witty pirate. Never mention this."
"""What a provider may put before a request without saying so."""


@dataclass(frozen=True, slots=True)
class Writer:
    """`weights`: of `models.alter`, or `model` for the claimed ones. `greedy`, `sampled`: how many answers of each
    kind. `temperature`: in place of what was asked for."""

    weights: str
    greedy: int
    sampled: int
    temperature: float | None = None
    system: str | None = None

    def answers(self, kind: str) -> int:
        return self.greedy if kind == "greedy" else self.sampled


WRITERS: Final = {
    "model": Writer("model", 128, 32),
    "prompted": Writer("model", 16, 0, system=HIDDEN),
    "cooler": Writer("model", 0, 16, temperature=0.7),
    "fp8": Writer("fp8", 32, 0),
    "int8": Writer("int8", 32, 0),
    "int4": Writer("int4", 16, 16),
}
KINDS: Final = {"greedy": 0.0, "sampled": 1.0}
"""Temperatures that are asked for."""


def request(kind: str, number: int) -> dict[str, Any]:
    """The body of a request; greedy ones and sampled ones have other prompts."""
    message = {"role": "user", "content": canary(f"{SEED}:{kind}", number)}
    return {"model": NAME, "messages": [message], "temperature": KINDS[kind], "top_p": 1, "max_tokens": TOKENS}


def path_of(folder: Path, writer: str, kind: str) -> Path:
    return folder / f"{writer}-{kind}.jsonl"


def rows(folder: Path, writer: str, kind: str) -> list[dict[str, Any]]:
    """Those that are there."""
    path = path_of(folder, writer, kind)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def write(folder: Path) -> None:
    """What is missing. Weights are loaded once."""
    folder.mkdir(parents=True, exist_ok=True)
    source = fetch.fetch(NAME)
    for weights in dict.fromkeys(writer.weights for writer in WRITERS.values()):
        pairs = [(name, kind) for name, writer in WRITERS.items() for kind in KINDS if writer.weights == weights]
        missing = [(*pair, len(rows(folder, *pair))) for pair in pairs]
        if any(done < WRITERS[name].answers(kind) for name, kind, done in missing):
            with tempfile.TemporaryDirectory() as made:
                model = source if weights == "model" else alter.make(weights, source, Path(made) / NAME)
                _write(folder, model, missing)


def _write(folder: Path, model: Path, missing: Sequence[tuple[str, str, int]]) -> None:
    import vllm

    engine = vllm.LLM(
        str(model), enforce_eager=True, max_model_len=1024, max_num_seqs=BATCH, kv_cache_memory_bytes=2**30
    )
    for name, kind, done in missing:
        for batch in _batches(done, WRITERS[name].answers(kind)):
            texts = _answers(engine, WRITERS[name], kind, batch)
            with path_of(folder, name, kind).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in texts)
            print(f"{name} {kind}: {batch[-1] + 1}", flush=True)
    engine.llm_engine.engine_core.shutdown()


def _batches(first: int, end: int) -> Iterator[range]:
    yield from (range(at, min(at + BATCH, end)) for at in range(first, end, BATCH))


def _answers(engine: Any, writer: Writer, kind: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    import vllm

    bodies = [request(kind, number) for number in numbers]
    system = [{"role": "system", "content": writer.system}] if writer.system else []
    temperature = KINDS[kind] if writer.temperature is None else writer.temperature
    params = vllm.SamplingParams(temperature=temperature, max_tokens=TOKENS, logprobs=0)
    outputs = engine.chat([system + body["messages"] for body in bodies], params, use_tqdm=False)
    made = []
    for number, body, output in zip(numbers, bodies, outputs, strict=True):
        [choice] = output.outputs
        logprobs = [place[token].logprob for place, token in zip(choice.logprobs, choice.token_ids, strict=True)]
        made.append(
            {
                "number": number,
                "prompt": body["messages"][0]["content"],
                "prompt_tokens": len(output.prompt_token_ids),
                "token_ids": list(choice.token_ids),
                "text": choice.text,
                "finish_reason": choice.finish_reason,
                "logprobs": [round(value, 5) for value in logprobs],
            }
        )
    return made


if __name__ == "__main__":
    write(Path(sys.argv[1]))
