"""Which weights a server was started with: the commit of the model, and a digest of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from toploc.weights import UnreadableWeights, weights_digest

RANDOM: Final = "dummy"
"""The `--load-format` of weights that are in no file."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an engine has its weights from.

    Attributes:
        model: a folder, a file, or a name on the hub.
        revision: the commit that was found in the hub's cache, or what the operator asked for.
        load_format: the engine's `--load-format`.
        download_dir: the hub's cache, where it is not in its usual place.
    """

    model: str
    revision: str | None
    load_format: str
    download_dir: str | None = None


@dataclass(frozen=True, slots=True)
class FirstWeights:
    """`sha256` is None where there is none, for the reason `problem`."""

    revision: str | None
    sha256: str | None
    problem: str | None = None


def first_weights(source: Source, chosen: str) -> FirstWeights:
    """`chosen`: a digest, `file` to compute it, `off` for none."""
    revision = source.revision[:100] if source.revision else None
    if chosen == "off":
        return FirstWeights(revision, None, "the operator leaves it out (--toploc-weights-digest off)")
    if chosen != "file":
        return FirstWeights(revision, chosen)
    if source.load_format == RANDOM:
        return FirstWeights(revision, None, "the weights are random (--load-format dummy)")
    try:
        return FirstWeights(revision, weights_digest(_folder(source)))
    except UnreadableWeights as error:
        return FirstWeights(revision, None, str(error))


def _folder(source: Source) -> Path:
    """Of the model's files, as the hub's cache has them where it is not one itself. Nothing is downloaded."""
    path = Path(source.model)
    if path.is_dir():
        return path
    if path.is_file():
        raise UnreadableWeights(f"{path.name} is no folder of *.safetensors; other formats have no digest")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                source.model, revision=source.revision, cache_dir=source.download_dir, local_files_only=True
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError):
        raise UnreadableWeights("the model's files are not where this process looks for them") from None
