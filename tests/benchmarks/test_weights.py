"""Alterations of weights: each changes what it says, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import quantisers
import torch
import weights

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS, HEAD, LAYERS = 4, 8, 3
NORM = "model.layers.0.input_layernorm.weight"
SHAPES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (80, 32),
    "mlp.up_proj": (80, 32),
    "mlp.down_proj": (32, 80),
}


@pytest.fixture
def model() -> dict[str, torch.Tensor]:
    """A Llama's weights, by name."""
    torch.manual_seed(0)
    found = {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape).to(torch.bfloat16)
        for layer in range(LAYERS)
        for name, shape in SHAPES.items()
    }
    return {**found, NORM: torch.ones(32, dtype=torch.bfloat16)}


def changed(model: dict[str, torch.Tensor], altered: dict[str, torch.Tensor]) -> set[str]:
    assert list(altered) == list(model)
    assert all(altered[name].dtype == torch.bfloat16 for name in model)
    return {name for name, weight in model.items() if not torch.equal(weight, altered[name])}


@pytest.mark.parametrize(
    "alter", [weights.int8, weights.int4, weights.fp8, weights.int4_groups, weights.nf4, weights.mxfp4]
)
def test_quantised_are_the_linear_weights_alone(
    model: dict[str, torch.Tensor], alter: Callable[[weights.Weights], object]
) -> None:
    assert changed(model, dict(alter(model))) == set(model) - {NORM}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("quantiser", "group", "values"),
    [(quantisers.int4_groups, 128, 16), (quantisers.nf4, 64, 16), (quantisers.mxfp4, 32, 15)],
)
def test_a_group_has_as_many_values_as_its_bits(
    quantiser: Callable[[torch.Tensor], torch.Tensor], group: int, values: int
) -> None:
    torch.manual_seed(1)
    weight = torch.randn(16, 2 * group + 24)
    rounded = quantiser(weight)
    assert rounded.shape == weight.shape
    for row in rounded:
        for part in row.split(group):
            assert len(part.unique()) <= values
    # In the middle of its range a grid of 4 bits is off by less than a tenth of the range.
    assert 0.01 < (rounded - weight).norm() / weight.norm() < 0.2
    again = quantiser(rounded)
    assert torch.allclose(again, rounded, atol=1e-5)


def test_known_roundings() -> None:
    weight = torch.tensor([[0.0, 1.0, -1.0, 0.33, 7.4, -0.1]])
    assert quantisers.mxfp4(weight).tolist() == [[0.0, 1.0, -1.0, 0.5, 6.0, -0.0]]
    assert quantisers.nf4(torch.tensor([[2.0, 0.9, -0.1]])).tolist()[0] == pytest.approx(
        [2.0, 2 * 0.44071, -2 * 0.09105], abs=1e-4
    )
    assert quantisers.int4_groups(torch.tensor([[0.0, 15.0, 7.4]])).tolist() == [[0.0, 15.0, 7.0]]


def test_an_adapter_has_its_rank_and_its_size(model: dict[str, torch.Tensor]) -> None:
    exact = {name: weight.float() for name, weight in model.items()}
    altered = dict(weights.lora(2, 0.01)(exact))
    for name, weight in exact.items():
        step = altered[name] - weight
        if name == NORM:
            assert not step.any()
            continue
        assert step.norm() / weight.norm() == pytest.approx(0.01, rel=1e-3)
        assert (torch.linalg.svdvals(step) > 1e-4 * step.norm()).sum() == 2
    assert changed(model, dict(weights.lora(2, 0.1)(model))) == set(model) - {NORM}


def test_pruned_heads_are_those_that_weigh_least(model: dict[str, torch.Tensor]) -> None:
    light = [(0, 2), (2, 0), (2, 3)]
    for layer, head in light:
        model[f"model.layers.{layer}.self_attn.o_proj.weight"][:, head * HEAD : (head + 1) * HEAD] *= 0.1
    before = {name: weight.clone() for name, weight in model.items()}
    altered = dict(weights.pruned_heads(HEAD, 3)(model))
    assert changed(model, altered) == {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 2)}
    for layer in range(LAYERS):
        columns = altered[f"model.layers.{layer}.self_attn.o_proj.weight"].unflatten(1, (HEADS, HEAD)).abs().sum((0, 2))
        assert [head for head in range(HEADS) if columns[head] == 0] == [h for at, h in light if at == layer]
    assert all(torch.equal(model[name], before[name]) for name in model)
