"""Receipts: `receipt.py` signs and checks, `output.py` is what was said, `keys.py` whose word it is."""
