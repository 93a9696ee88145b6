"""Proofs: from activations to 258 bytes a chunk, and to a verdict. Start at `format.py`, `chunks.py`, `verdict.py`."""
