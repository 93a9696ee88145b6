"""The study of trained models, without one: its engines, alterations while an engine runs, points, jobs and lengths."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engines
import jobs
import lengths
import numpy as np
import pytest
import skipping
import torch
from points import save_points
from questions import Answer, make_questions, of_people
from records import LONG, Records, Row
from separation import NAMES
from transformers import AutoTokenizer
from transformers_engine import prove

from toploc.proofs.field import evaluate
from toploc.proofs.format import decode_proof

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
RESULTS = Path(lengths.__file__).parent / "results"
GEMMA = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default"}}


def test_a_model_under_another_config(tmp_path: Path) -> None:
    config = json.loads((MODEL / "config.json").read_text())
    changed = {**config, "rope_parameters": engines.scaled(config["rope_parameters"]), **engines.windowed(config)}
    made = Path(engines.reconfigured(str(MODEL), changed))
    assert json.loads((made / "config.json").read_text()) == changed
    assert changed["rope_parameters"]["factor"] == 2.0
    assert changed["layer_types"] == ["sliding_attention"] * config["num_hidden_layers"]
    assert (made / "model.safetensors").read_bytes() == (MODEL / "model.safetensors").read_bytes()
    assert {kind: parameters["rope_type"] for kind, parameters in engines.scaled(GEMMA).items()} == dict.fromkeys(
        GEMMA, "linear"
    )


@pytest.mark.parametrize("name", [name for name in engines.ENGINES if name != "transformers"])
def test_options_that_the_engine_has(name: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    made = EngineArgs(model=str(MODEL), **engines.options(name, 1.0))
    assert made.kv_cache_memory_bytes == 2**30


class Layer(torch.nn.Module):
    """Of vLLM's form: a norm that writes into the residual, then something."""

    def forward(self, positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor) -> Any:
        residual += hidden
        return 2 * residual + positions[:, None], residual


def test_skipped_layers_leave_the_state_of_some_tokens() -> None:
    layers = torch.nn.ModuleList(Layer() for _ in range(10))
    worker = SimpleNamespace(get_model=lambda: SimpleNamespace(model=SimpleNamespace(layers=layers)))
    positions, hidden, residual = torch.arange(8), torch.randn(8, 4), torch.randn(8, 4)

    def run(layer: torch.nn.Module) -> torch.Tensor:
        out, after = layer(positions, hidden.clone(), residual.clone())
        return torch.as_tensor(out + after)

    honest = run(layers[9])
    skipping.skip(worker)
    assert torch.equal(run(layers[7]), honest)
    for layer in layers[8:]:
        skipped = run(layer)
        assert torch.equal(skipped[[3, 7]], (hidden + residual)[[3, 7]])
        assert torch.equal(skipped[[0, 1, 2, 4, 5, 6]], honest[[0, 1, 2, 4, 5, 6]])
    skipping.skip_nothing(worker)
    assert torch.equal(run(layers[9]), honest)


def test_points_are_what_a_verdict_rests_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    states = [torch.randn(70, 256).to(torch.bfloat16) for _ in range(3)]
    answers = [Answer([1], list(range(70)), prove(rows)) for rows in states]
    with np.load(save_points(tmp_path, "a model: a row", answers, states)) as saved:
        assert saved["proofs"].shape == (3, 2, 258)
        assert saved["indices"].dtype == np.uint16
        for at, rows in enumerate(states):
            flat = rows[32:64].flatten().view(torch.uint16)
            indices = saved["indices"][at, 1]
            assert saved["patterns"][at, 1].tolist() == flat[indices.astype(int)].tolist()
            proof = decode_proof(saved["proofs"][at, 1].tobytes())
            claimed = evaluate(proof.coefficients, (indices % proof.modulus).astype(np.uint16))
            assert claimed.tolist() == saved["patterns"][at, 1].tolist()


def test_prompts_of_people_are_no_honest_and_altered_rows_at_once() -> None:
    honest, altered = ({of_people(first + n) for n in range(2000)} for first in (0, 100_000))
    assert len(honest) >= 1360  # what honest_kinds ask
    assert not honest & altered
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    asked = make_questions(tokenizer, range(8), source="manual")
    assert [question.temperature for question in asked] == [0.0, 1.0, 0.7, 1.0] * 2
    tokenizer.chat_template = None
    [plain] = make_questions(tokenizer, [5], source="manual")
    assert tokenizer.decode(plain.prompt) == of_people(5)


def test_jobs_wait_for_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"hidden_size": 64}')
    listed = jobs.real_model(tmp_path / "m", tmp_path, tmp_path, tmp_path / "other", points=True)
    names = [job.name for job in listed]
    assert len(set(names)) == len(names)
    assert {name for job in listed for name in job.after} <= set(names)


def test_what_is_found_by_length(tmp_path: Path) -> None:
    """Errors a half larger are lost in one chunk's noise, and found in sixteen; ten times larger ones in one."""
    rng = np.random.default_rng(0)

    def row(kind: str, name: str, scale: float, chunks: int) -> Row:
        figures = np.zeros((400, chunks, len(NAMES) + 1))
        figures[..., NAMES.index("mantissa_mean")] = scale * rng.lognormal(0, 0.3, (400, chunks))
        return Row("m", kind, name, "v", figures.tolist())

    rows = [row("honest", "p", 1.0, 16), row("altered", "larger", 1.5, 16), row("altered", "ten", 10.0, 4)]
    rows += [row("honest", f"p{LONG}", 1.0, 64), row("altered", f"larger{LONG}", 1.5, 64)]
    rows[3].chunks[7] = rows[3].chunks[7][:55]  # ended by its server before it was as long as others
    found = lengths.detection(rows, "v")
    assert {name: sorted(rates) for name, rates in found.items()} == {
        "the model, held out": [1, 4, 16, 64],
        "larger": [1, 4, 16, 64],
        "ten": [1, 4],
    }
    assert [found["the model, held out"][chunks].total for chunks in (16, 64)] == [400, 199]
    assert max(rate.share for rate in found["the model, held out"].values()) < 0.02
    shares = {chunks: rate.share for chunks, rate in found["larger"].items()}
    assert shares[1] < 0.2 < 0.8 < shares[16] <= shares[64] == 1.0
    assert found["larger"][16].total == 400
    assert found["ten"][1].share == 1.0
    records = Records(tmp_path / "rows.jsonl")
    for one in rows:
        records.add(one)
    text = lengths.write(records.path, tmp_path / "out")
    assert "| ten | 400 of 400 (99.1 % to 100 %) |" in text
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "lengths.md",
        *(f"m-{theme}.svg" for theme in ("light", "dark")),
    }


def test_published_tables_are_of_the_published_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lzma.decompress((RESULTS / "trained-rows.jsonl.xz").read_bytes()))
    rows = list(Records(path))
    published = (RESULTS / "lengths.md").read_text("utf-8")
    models = dict.fromkeys(row.model for row in rows)
    assert list(models) == ["smollm2-135m-instruct", "gemma-3-270m-base"]
    for model in models:
        of_model = [row for row in rows if row.model == model]
        found = lengths.detection(of_model, "vLLM, prefill")
        assert f"### {model}, verifier vLLM, prefill\n\n{lengths.table(found)}" in published
