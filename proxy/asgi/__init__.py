"""ASGI and server-sent events, with nothing about proofs: `sse.py` reads and extends events, `errors.py` refuses."""
