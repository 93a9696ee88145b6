"""Which of the ranks of a model has its outputs."""

from __future__ import annotations

from vllm.distributed.parallel_state import get_pp_group, get_tp_group


def is_last_stage() -> bool:
    """Whether this worker has the model's last layers, and its output head."""
    return bool(get_pp_group().is_last_rank)


def is_output_rank() -> bool:
    """Whether this worker's outputs are the ones the engine reads: hidden states are whole on the last pipeline
    stage and equal over tensor-parallel ranks (vllm/v1/executor/multiproc_executor.py)."""
    return is_last_stage() and get_tp_group().rank_in_group == 0
