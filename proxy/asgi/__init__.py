"""ASGI and server-sent events, with nothing about proofs."""
