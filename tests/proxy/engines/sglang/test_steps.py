"""Which rows of a forward pass are whose, as SGLang's batches say it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toploc_proxy.engines.sglang.runners.states import KEY, Tap, take
from toploc_proxy.engines.sglang.runners.steps import rows_of, step_of


def batch(mode: str, rids: list[str], **more: Any) -> Any:
    return SimpleNamespace(
        forward_mode=SimpleNamespace(name=mode),
        rids=rids,
        positions=torch.arange(8),
        input_ids=torch.arange(8),
        **more,
    )


def test_decoding_has_a_row_each_at_the_last_position() -> None:
    rows = rows_of(batch("DECODE", ["a", "b"], seq_lens_cpu=torch.tensor([5, 9])))
    assert rows is not None
    assert rows.first_positions.tolist() == [4, 8]
    assert rows.starts.tolist() == [0, 1, 2]
    assert step_of(rows, torch.zeros(2, 4)).one_row_each


@pytest.mark.parametrize("mode", ["EXTEND", "MIXED"])
def test_a_prefill_begins_after_what_is_cached(mode: str) -> None:
    """Rows of running requests come after it, in a batch of both."""
    rows = rows_of(batch(mode, ["a", "b", "c"], extend_prefix_lens_cpu=[0, 64, 9], extend_seq_lens_cpu=[3, 4, 1]))
    assert rows is not None
    assert rows.first_positions.tolist() == [0, 64, 9]
    assert rows.starts.tolist() == [0, 3, 7, 8]
    assert step_of(rows, torch.zeros(8, 4)).num_rows.tolist() == [3, 4, 1]


@pytest.mark.parametrize("mode", ["IDLE", "TARGET_VERIFY", "SPLIT_PREFILL", "DLLM_EXTEND", "PREBUILT", "LATER"])
def test_other_modes_have_none(mode: str) -> None:
    assert rows_of(batch(mode, ["a"])) is None


def test_a_batch_of_nobody_has_none() -> None:
    assert rows_of(batch("DECODE", [], seq_lens_cpu=torch.zeros(0))) is None


def test_states_are_taken_once() -> None:
    Tap.states = states = torch.zeros(1)
    assert take(SimpleNamespace(customized_info=None)) is states
    assert take(SimpleNamespace()) is None


@pytest.mark.parametrize(("more", "left"), [({}, None), ({"other": 1}, {"other": 1})])
def test_states_of_a_graph_do_not_go_on_to_the_client(more: dict[str, Any], left: Any) -> None:
    """SGLang sends what is left in `customized_info`."""
    captured = torch.ones(1)
    output = SimpleNamespace(customized_info={KEY: captured, **more})
    assert take(output) is captured
    assert output.customized_info == left
