"""Options of sampling for speculated tokens on CPUs, where vLLM's own are from uninitialised memory.

vllm/utils/cpu_triton_utils.py, 0.26 to 0.33: `_expand_kernel_impl` has its compiled kernel write into an integer copy
of its output, which nobody reads. So temperature, top-p and top-k of drafts are what was in that memory before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from toploc.errors import UnsupportedEngine

from ...log import logger
from ..guards import load, require_parameters
from . import reliances

if TYPE_CHECKING:
    import torch


def mend() -> None:
    """Puts `expand` in the place of vLLM's function, in this process."""
    reliance = reliances.EXPANSION
    try:
        require_parameters(load(reliance), reliance)
    except UnsupportedEngine as error:
        logger.warning("toploc: sampled speculation on CPUs is left as it is: %s", error)
        return
    setattr(import_module(reliance.modules[0]), reliance.name, expand)


def expand(
    x: torch.Tensor, cu_num_tokens: torch.Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> torch.Tensor:
    """Each request's value, once for each of its tokens.

    Args:
        x: [requests].
        cu_num_tokens: [requests], how many tokens there are up to each request's last.
        num_tokens: of all requests.
        replace_from, replace_to: a value to be replaced, and by what.

    Returns:
        [tokens], of the dtype of `x`.
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    return x.masked_fill(x == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)
