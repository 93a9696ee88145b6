"""POST /v1/toploc/verify: `route.py` answers, `limits.py` says who waits, `verifier.py` asks the engine."""
