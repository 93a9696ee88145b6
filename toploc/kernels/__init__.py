"""Compiled code: `jit.py` for processors, the others for GPUs. Nothing is imported here: numba comes after vLLM."""
