"""Proofs and verification without a server: `LLM` is vLLM's, whose outputs carry proofs (docs/offline.md)."""

from __future__ import annotations

from .engines.vllm.offline.llm import LLM
from .engines.vllm.offline.rollout import Rollout

__all__ = ["LLM", "Rollout"]
