"""What a server that only verifies sets of vLLM's options by itself, where the operator does not.

Each has a measurement behind it (benchmarks/verify/README.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ....log import logger
from ....settings import Role

if TYPE_CHECKING:
    from argparse import Namespace

CAPTURED: Final = 1024
"""Tokens up to which CUDA graphs are captured: prompt and answer of a verification are one prefill. vLLM's own 512 are
for decoding."""


def set_for_verifier(args: Namespace, *, graphs: bool) -> None:
    """Sets options of vLLM's that are still as nobody left them, and says which in a line.

    Args:
        graphs: whether the platform captures graphs.
    """
    if args.toploc_role != Role.VERIFIER.value:
        return
    chosen = []
    # Verifications never read it (`..prefill`), and nothing else runs; each would write its blocks for nobody.
    if getattr(args, "enable_prefix_caching", False) is None:
        args.enable_prefix_caching = False
        chosen.append("--no-enable-prefix-caching")
    if graphs and _captures_as_vllm_chooses(args):
        args.max_cudagraph_capture_size = CAPTURED
        chosen.append(f"--max-cudagraph-capture-size {CAPTURED}")
    if chosen:
        logger.info("toploc: a verifier, so with %s; your own flags would be taken instead", " ".join(chosen))


def _captures_as_vllm_chooses(args: Namespace) -> bool:
    """Whether graphs are captured, and the operator has said nothing of their sizes, by any of three options."""
    sizes = ("max_cudagraph_capture_size", "cudagraph_capture_sizes")
    config: Any = getattr(args, "compilation_config", None) or {}
    said = config if isinstance(config, dict) else vars(config)
    return (
        not getattr(args, "enforce_eager", False)
        and hasattr(args, sizes[0])
        and all(getattr(args, name, None) is None and said.get(name) is None for name in sizes)
    )
