"""What `toploc sglang` refuses to start with, each in a line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from toploc.errors import UnsupportedEngine

from ....settings import Role

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

OFF: Final = (None, False, "", "null", "none", "0", "false", "False", "no", "n")
"""Values of an option, or of a variable, with which it does nothing."""

UNTESTED: Final = "is not tested with proofs"

OPTIONS: Final = {
    "speculative_algorithm": "with speculation several drafts have one position, and which was kept is not known",
    "disaggregation_mode": "a prefill and its decoding on two servers leave neither with all hidden states",
    "enable_pdmux": "a prefill that is split over steps hands out no hidden states for its rows",
    "dllm_algorithm": "a diffusion model computes each token many times, in no order that a proof has",
    "enable_torch_compile": "a compiled model does not hand out its hidden states",
    "is_embedding": "an embedding model generates nothing",
    "encoder_only": "a server of encoders generates nothing",
    "language_only": "prompts whose media another server encodes cannot be rebuilt",
    "grpc_mode": "the gRPC server has no HTTP responses to carry proofs",
    "smg_grpc_mode": "the gRPC server has no HTTP responses to carry proofs",
    "grpc_port": "the gRPC server has no HTTP responses to carry proofs",
    "use_ray": f"Ray {UNTESTED}",
    "enable_prefill_cp": f"context parallelism {UNTESTED}",
    "enable_layernorm_sp": "final hidden states are divided over the sequence there",
    "enable_two_batch_overlap": f"a batch that is run in halves {UNTESTED}",
    "elastic_ep_backend": f"an engine whose ranks come and go {UNTESTED}",
    "enable_memory_saver": "captures lie in memory that a release of it would unmap",
    "enable_encoder_swa_bounded_replay": "with bounded replay a prefill leaves rows without valid hidden states",
    "allow_auto_truncate": "a prompt that the scheduler cuts is not the one that a verifier rebuilds",
}
"""By the option's name without its dashes: why proofs do not go with it. SGLang's versions lack some of them."""

SIZES: Final = {
    "nnodes": f"an engine on several machines {UNTESTED}",
    "attn_cp_size": f"context parallelism {UNTESTED}",
    "dcp_size": f"context parallelism {UNTESTED}",
}
"""The same of options that are numbers, of which more than one is refused."""

VARIABLES: Final = {
    "SGLANG_RUST_SERVER": "the Rust server runs no Python plugins, so its answers would carry no proofs",
    "SGLANG_GRPC_PORT": "the gRPC server has no HTTP responses to carry proofs",
    "SGLANG_ENABLE_TORCH_COMPILE": "a compiled model does not hand out its hidden states",
}
"""The same of variables in the environment."""

GRAPHS: Final = ("full", "disabled")
"""Kinds of CUDA graphs of decoding steps whose captured output carries the hidden states."""


def refuse_unsupported(args: Namespace) -> None:
    """Raises UnsupportedEngine for options under which answers could not be proven, before anything is loaded."""
    for why in reasons_to_refuse(args):
        raise UnsupportedEngine(f"toploc: {why}")


def reasons_to_refuse(args: Namespace) -> Iterator[str]:
    """Why each option that is set does not go with proofs, and what to do about it."""
    for name, why in OPTIONS.items():
        if getattr(args, name, None) not in OFF:
            yield f"{why}; leave out --{name.replace('_', '-')}"
    for name, why in SIZES.items():
        if (getattr(args, name, None) or 1) > 1:
            yield f"{why}; leave out --{name.replace('_', '-')}"
    yield from reasons_in_environment()
    graphs = getattr(args, "cuda_graph_backend_decode", None)
    if graphs is not None and graphs not in GRAPHS:
        yield (
            f"{graphs} CUDA graphs of decoding steps do not hand out hidden states; leave out "
            "--cuda-graph-backend-decode"
        )
    if getattr(args, "toploc_role", None) == Role.VERIFIER.value and getattr(args, "skip_tokenizer_init", False):
        yield "verification needs the tokenizer; leave out --skip-tokenizer-init"


def reasons_in_environment() -> Iterator[str]:
    """The same of variables."""
    for name, why in VARIABLES.items():
        if os.environ.get(name) not in OFF:
            yield f"{why}; unset {name}"
