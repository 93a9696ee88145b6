"""Which of the ranks of a model has its outputs, and of which engine."""

from __future__ import annotations

from typing import Any

from sglang.srt.runtime_context import get_parallel


def is_output_rank() -> bool:
    """Whether hidden states are whole here, and no other rank of this engine captures them: they are those of the last
    pipeline stage, and equal over the ranks that share attention."""
    parallel = get_parallel()
    return not parallel.attn_tp_rank and not parallel.attn_cp_rank and parallel.pp_rank == parallel.pp_size - 1


def engine_of(scheduler: Any) -> int:
    """Its number among data-parallel ones. The scheduler has it before SGLang 0.5.23, the process from then on."""
    ranks = getattr(scheduler, "ps", None) or get_parallel()
    return int(ranks.dp_rank or 0)
