"""What can be fetched later by a response's id: receipts, and proofs. `database.py` is the file that both may have."""
