"""A verification in the worker: `prefills.py` keeps rows, `examiner.py` makes points and scores. Nothing is imported here."""
