"""All that knows vLLM: `plugin.py` and `endpoint.py` are where it calls us. Nothing is imported here."""
