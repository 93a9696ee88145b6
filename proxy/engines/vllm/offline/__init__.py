"""vLLM's `LLM` with proofs and verification (`toploc_proxy.offline`). Start at `llm.py`."""
