"""Proofs: activations to 258 bytes a chunk, and back to a verdict. Start at `format.py`, then `chunks.py` and `verdict.py`."""
