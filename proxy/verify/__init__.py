"""POST /v1/toploc/verify. Start at `route.py`, which answers; `limits.py` says who waits, `verifier.py` computes and
judges, and `engine.py` says what it needs of an engine."""
