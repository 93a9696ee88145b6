"""What `toploc serve` refuses to start with, each in a line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from toploc.errors import UnsupportedEngine

from ....settings import Role
from ..plugin import RUST_FRONT_END
from ..runners.refused import PROCESSED, lossy, lossy_acceptance

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    Reasons = Iterator[tuple[bool, str]]


OWN_FRONT_ENDS: Final = (
    "data_parallel_hybrid_lb",
    "data_parallel_external_lb",
    "data_parallel_multi_port_external_lb",
)
"""Options with which a front end has the engines of its own node alone (vllm/config/parallel.py,
`local_engines_only`)."""


def refuse_unsupported(args: Namespace) -> None:
    """Raises UnsupportedEngine for options under which answers could not be proven, before anything is loaded."""
    for refused, why in reasons_to_refuse(args):
        if refused:
            raise UnsupportedEngine(f"toploc: {why}")


def reasons_to_refuse(args: Namespace) -> Reasons:
    """Whether each option is set that proofs do not go with, and what to do about it. vLLM 0.26 lacks some of them."""
    yield from _of_front_end(args)
    yield from _of_engine(args)
    yield from _of_machines(args)


def _of_front_end(args: Namespace) -> Reasons:
    rust = os.environ.get("VLLM_USE_RUST_FRONTEND", "0")
    yield (
        bool(getattr(args, "grpc", False)),
        "the gRPC front end has no HTTP responses to carry proofs; leave out --grpc",
    )
    yield rust not in ("", "0"), RUST_FRONT_END
    yield (
        getattr(args, "toploc_role", None) == Role.VERIFIER.value
        and any(getattr(args, name, False) for name in ("tokens_only", "skip_tokenizer_init")),
        "verification needs the tokenizer; leave out --tokens-only and --skip-tokenizer-init",
    )
    yield (
        bool(getattr(args, "toploc_seed_requests", False))
        and getattr(args, "enable_chunked_prefill", None) is not False
        and _on_cpu(),
        (
            "on CPUs vLLM's engine ends at a seeded request whose prompt it prefills in chunks; add "
            "--no-enable-chunked-prefill, or leave out --toploc-seed-requests"
        ),
    )


def _of_engine(args: Namespace) -> Reasons:
    yield (
        bool(getattr(args, "kv_sharing_fast_prefill", False)),
        (
            "KV-sharing fast prefill leaves prompt positions without valid hidden states; "
            "leave out --kv-sharing-fast-prefill"
        ),
    )
    yield (
        getattr(args, "prefill_context_parallel_size", 1) > 1,
        "prefill context parallelism is not tested with proofs; leave out --prefill-context-parallel-size",
    )
    yield (
        bool((getattr(args, "speculative_config", None) or {}).get("enable_adaptive_verification")),
        (
            "with adaptive verification the CPU does not know which rows are whose; "
            "leave enable_adaptive_verification out of --speculative-config"
        ),
    )
    method = lossy(getattr(args, "speculative_config", None))
    yield method is not None, lossy_acceptance(str(method))
    yield bool(getattr(args, "logits_processors", None)), f"{PROCESSED}; leave out --logits-processors"
    yield (
        bool(getattr(args, "enable_elastic_ep", False)),
        "engines that come and go are not tested with proofs; leave out --enable-elastic-ep",
    )


def _of_machines(args: Namespace) -> Reasons:
    ray, several = uses_ray(args), uses_several_machines(args)
    channel, secret = (getattr(args, f"toploc_channel{name}", None) for name in ("", "_secret"))
    yield (
        (ray or several) and not channel,
        (
            "workers on other machines cannot reach a local side channel (Ray, --nnodes, --headless, "
            "--data-parallel-size-local); add --toploc-channel tcp://HOST:PORT"
        ),
    )
    yield (
        several and not secret,
        "each machine has to know the side channel's secret; add --toploc-channel-secret FILE, the same on all",
    )
    yield bool(secret) and not channel, "--toploc-channel-secret needs --toploc-channel tcp://HOST:PORT"


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def uses_ray(args: Namespace) -> bool:
    """Ray starts workers, here or elsewhere, and hands them the environment."""
    return "ray" in (
        getattr(args, "distributed_executor_backend", None),
        getattr(args, "data_parallel_backend", None),
    )


def uses_several_machines(args: Namespace) -> bool:
    """`toploc serve` is started on each."""
    local = getattr(args, "data_parallel_size_local", None)
    elsewhere = local is not None and local < (getattr(args, "data_parallel_size", None) or 1)
    own = any(getattr(args, name, False) for name in OWN_FRONT_ENDS)
    return (
        (getattr(args, "nnodes", None) or 1) > 1
        or bool(getattr(args, "headless", False))
        or (elsewhere and not own and not uses_ray(args))
    )
