"""Where a vLLM engine has its weights from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...weights import Source

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def source_of(config: VllmConfig) -> Source:
    """As its configuration says."""
    model, load = config.model_config, config.load_config
    # The commit that transformers found in the hub's cache, or what the operator asked for.
    found = getattr(model.hf_config, "_commit_hash", None) or model.revision
    return Source(model.model, str(found) if found else None, str(load.load_format), load.download_dir)
