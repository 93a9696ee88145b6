"""Receipts: `statement.py` signs, `receipt.py` checks, `output.py` is what was said, `keys.py` whose word it is."""
