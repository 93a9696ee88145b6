"""Models and options that proofs do not go with, and that only a worker knows: each is refused in a line."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import UnsupportedEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vllm.config import VllmConfig

LOGITS_PROCESSORS: Final = "vllm.logits_processors"
"""Entry points that every engine loads (vllm/v1/sample/logits_processor/__init__.py, LOGITSPROCS_GROUP)."""

LOSSLESS: Final = ("standard", "block")
"""Of `rejection_sample_method` (vllm/config/speculative.py): tokens are distributed as the model's own. `synthetic` and
`fly` keep some that it rejected."""

PROCESSED: Final = (
    "custom logits processors change which tokens are chosen, and no request names them, so that verification would "
    "reject honest answers"
)

TWO_STATES: Final = ("KimiK3",)
"""How the names of architectures begin whose final hidden states are those before the last norm, or those after it,
by the options of the server (vllm/models/kimi_k3/nvidia/model.py)."""


def refuse_configuration(config: VllmConfig) -> None:
    """Before anything is loaded. Raises UnsupportedEngine."""
    if config.model_config.runner_type != "pooling":
        _refuse(next(_of_configuration(config), None))


def refuse_model(model: Any) -> None:
    """Once it is loaded. Raises UnsupportedEngine.

    With bounded replay the last layers of a prefill run on each request's last rows alone, and those of all others are
    zero (DeepSeek-V4.1, vllm/models/deepseek_v41/decoder_replay_layers.py): those that a verification reads.
    """
    if any(getattr(module, "decoder_replay_layers", None) is not None for module in model.modules()):
        _refuse(
            "with bounded replay a prefill leaves most rows without valid hidden states, so that verification would "
            "reject honest answers; add --no-swa-bounded-replay"
        )


def _of_configuration(config: VllmConfig) -> Iterator[str]:
    model = config.model_config
    if model.is_diffusion:
        yield "a diffusion model computes each token many times, in no order that a proof has"
    architectures = [name for name in model.architectures if name.startswith(TWO_STATES)]
    if architectures:
        yield (
            f"{architectures[0]} has its final hidden states before or after the last norm, by options of the server, "
            "so that two honest servers would disagree"
        )
    if model.logits_processors:
        yield f"{PROCESSED}; leave out --logits-processors"
    installed = sorted(f"{point.name} = {point.value}" for point in entry_points(group=LOGITS_PROCESSORS))
    if installed:
        yield f"{PROCESSED}; uninstall the package with the entry point {installed[0]} ({LOGITS_PROCESSORS})"
    method = lossy(config.speculative_config)
    if method is not None:
        yield lossy_acceptance(method)


def lossy(speculation: object) -> str | None:
    """The method by which drafts are accepted that the model rejects; None if none are. `speculation`: as an option
    has it, or as vLLM resolved it."""
    given = speculation if isinstance(speculation, dict) else vars(speculation) if speculation is not None else {}
    method = given.get("rejection_sample_method", LOSSLESS[0])
    return None if method in LOSSLESS else str(method)


def lossy_acceptance(method: str) -> str:
    return (
        f"rejection_sample_method {method!r} keeps drafted tokens that the model rejects, so that verification would "
        f"reject honest answers; leave it out of --speculative-config, or use one of {', '.join(LOSSLESS)}"
    )


def _refuse(why: str | None) -> None:
    if why is not None:
        raise UnsupportedEngine(f"toploc: {why}")
