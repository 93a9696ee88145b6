"""Measures the bundled model's honest figures, writes its thresholds, and tells which altered copies they catch.

    python models/calibrate.py [--answers 120]

The prover is vLLM as this environment has it, the verifier transformers, both in bfloat16. Bounds come from half of the
honest answers; the tables printed at the end are of the other half, and of answers of altered copies served under the
model's name.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import alter
import openai
import torch
import vllm
import yaml
from corpus import exchange
from toploc_proxy.local_server import LocalServer

from toploc.prefill import TransformersPrefill
from toploc.thresholds import Thresholds
from toploc.verify import ChunkVerdict, verify_activations

MODELS = Path(__file__).parent
SOURCE = MODELS / "toploc-mini"
TARGET = MODELS.parent / "configs" / "thresholds" / "toploc-mini.yaml"
NAME = "toploc-mini"
SERVE = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]

# Lengths of answers, so that last chunks have every size of interest.
LENGTHS = (1, 2, 4, 8, 9, 16, 20, 31, 32, 33, 64, 70, 100, 200)
# Chunks of fewer rows have noisier figures: bounds for 1 to 7, 8 to 31 and 32 rows.
GROUPS = (1, 8, 32)
PAPER = Thresholds.paper()
ALTERED = ("fp8", "int8", "int4", "finetuned", "scaled", "template", "system")


@dataclass(frozen=True, slots=True)
class Answer:
    """One served answer: its proofs, and the hidden states that the honest model has for its tokens."""

    proofs: list[str]
    states: torch.Tensor

    def chunks(self, thresholds: Thresholds) -> list[tuple[int, ChunkVerdict]]:
        """Rows and verdict of every chunk."""
        verdict = verify_activations(self.proofs, self.states, thresholds=thresholds)
        lengths = [len(rows) for rows in self.states.split(32)]
        return list(zip(lengths, verdict.chunks, strict=True))


def answers(url: str, prefill: TransformersPrefill, seeds: Sequence[int]) -> Iterator[Answer]:
    """Asks seeded questions, half greedily and half at temperature 1."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    for seed in seeds:
        rng = Random(seed)
        messages = [{"role": "user", "content": exchange(rng).question}]
        response = client.chat.completions.create(
            model=NAME,
            messages=messages,
            max_tokens=rng.choice(LENGTHS),
            temperature=seed % 2,
            extra_body={"ignore_eos": True},
        )
        [choice] = response.toploc_proofs["choices"]
        states = prefill.hidden_states(prefill.render(messages), choice["token_ids"])
        yield Answer(choice["proofs"], states)


def group(rows: int) -> int:
    return max(g for g in GROUPS if g <= rows)


def bounds(honest: Sequence[Answer]) -> list[dict[str, float]]:
    """Twice the worst honest figure, and a little where that is near zero; nothing is fitted to altered copies."""
    measured = [chunk for answer in honest for chunk in answer.chunks(PAPER)]
    result = []
    for g in GROUPS:
        chunks = [chunk for rows, chunk in measured if group(rows) == g]
        result.append(
            {
                "rows": g,
                "mismatches": 2 * max(c.mismatches for c in chunks) + 2,
                "mantissa_mean": round(2 * max(c.mantissa_mean for c in chunks) + 0.1, 2),
                "mantissa_median": 2 * max(c.mantissa_median for c in chunks) + 1,
            }
        )
    return result


def impostor_rate(honest: Sequence[Answer], thresholds: Thresholds, rng: Random, pairs: int = 2000) -> float:
    """Share of whole chunks that accept the proof of a whole chunk of another answer."""
    whole = [
        (a, proof, rows)
        for a in honest
        for proof, rows in zip(a.proofs, a.states.split(32), strict=True)
        if len(rows) == 32
    ]
    accepted = tried = 0
    while tried < pairs:
        (one, proof, _), (other, _, rows) = rng.choice(whole), rng.choice(whole)
        if one is not other:
            tried += 1
            accepted += verify_activations([proof], rows, thresholds=thresholds).passed
    return accepted / pairs


def table_row(name: str, measured: Sequence[Answer], thresholds: Thresholds) -> str:
    whole = [chunk for answer in measured for rows, chunk in answer.chunks(thresholds) if rows == 32]
    ranges = [
        f"{min(values):.3g} to {max(values):.3g}"
        for values in (
            [c.mismatches for c in whole],
            [c.mantissa_mean for c in whole],
            [c.mantissa_median for c in whole],
        )
    ]
    rejected = [
        sum(not all(chunk.passed for _, chunk in answer.chunks(used)) for answer in measured)
        for used in (thresholds, PAPER)
    ]
    by_chunk = sum(not chunk.passed for chunk in whole)
    return (
        f"| {name} | {' | '.join(ranges)} | {by_chunk} of {len(whole)} "
        f"| {rejected[0]} of {len(measured)} | {rejected[1]} of {len(measured)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=120, help="per table row; twice as many honest ones")
    count: int = parser.parse_args().answers
    prefill = TransformersPrefill(SOURCE)
    print("honest", flush=True)
    with LocalServer([str(SOURCE), *SERVE]) as server:
        calibration = list(answers(server.url, prefill, range(count)))
        held_out = list(answers(server.url, prefill, range(count, 2 * count)))
    document = {
        "name": NAME,
        "dtype": "bfloat16",
        "topk": 128,
        "model": NAME,
        "provenance": f"models/calibrate.py: twice the worst of {sum(len(a.proofs) for a in calibration)} honest "
        f"chunks of {count} answers; prover vLLM {vllm.__version__} on a CPU, verifier transformers (sdpa), bfloat16",
        "bounds": bounds(calibration),
    }
    # Those come from benchmarks/tokens/run.py.
    tokens = Thresholds.load(TARGET).tokens
    if tokens is not None:
        document["tokens"] = tokens.model_dump()
    document["impostor_rate"] = impostor_rate(calibration, Thresholds.from_dict(document), Random(0))
    TARGET.write_text(yaml.safe_dump(document, sort_keys=False, width=100), encoding="utf-8")
    thresholds = Thresholds.load(TARGET)
    rows = [table_row("honest, held out", held_out, thresholds)]
    for kind in ALTERED:
        print(kind, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            copy = alter.make(kind, SOURCE, Path(folder) / kind)
            with LocalServer([str(copy), *SERVE]) as server:
                measured = list(answers(server.url, prefill, range(2 * count, 3 * count)))
        rows.append(table_row(kind, measured, thresholds))
    print(
        f"\nimpostor rate {thresholds.impostor_rate}\n\n| answers of | mismatches | mantissa mean | mantissa median "
        "| chunks of 32 rejected | answers rejected | by the paper's bounds |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
