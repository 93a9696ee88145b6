"""Verifiers: `judge.py` makes the report; `transformers.py` and `server.py` are two of them.

Nothing is imported here: the client asks servers without torch.
"""
