"""Which weights the server was started with: the commit of the model, and a digest of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toploc.weights import UnreadableWeights, weights_digest

if TYPE_CHECKING:
    from vllm.config import VllmConfig

RANDOM: Final = "dummy"
"""The `--load-format` of weights that are in no file."""


@dataclass(frozen=True, slots=True)
class FirstWeights:
    """`sha256` is None where there is none, for the reason `problem`."""

    revision: str | None
    sha256: str | None
    problem: str | None = None


def first_weights(config: VllmConfig, chosen: str) -> FirstWeights:
    """`chosen`: a digest, `file` to compute it, `off` for none."""
    revision = _revision(config.model_config)
    if chosen == "off":
        return FirstWeights(revision, None, "the operator leaves it out (--toploc-weights-digest off)")
    if chosen != "file":
        return FirstWeights(revision, chosen)
    if config.load_config.load_format == RANDOM:
        return FirstWeights(revision, None, "the weights are random (--load-format dummy)")
    try:
        return FirstWeights(revision, weights_digest(_folder(config)))
    except UnreadableWeights as error:
        return FirstWeights(revision, None, str(error))


def _revision(model: Any) -> str | None:
    """The commit that transformers found in the hub's cache, or what the operator asked for."""
    found = getattr(model.hf_config, "_commit_hash", None) or model.revision
    return str(found)[:100] if found else None


def _folder(config: VllmConfig) -> Path:
    """Of the model's files, as the hub's cache has them where it is not one itself. Nothing is downloaded."""
    model = config.model_config
    path = Path(model.model)
    if path.is_dir():
        return path
    if path.is_file():
        raise UnreadableWeights(f"{path.name} is no folder of *.safetensors; other formats have no digest")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                model.model, revision=model.revision, cache_dir=config.load_config.download_dir, local_files_only=True
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        raise UnreadableWeights("the model's files are not where this process looks for them") from None
