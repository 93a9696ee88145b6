"""A verification in the worker: `prefills.py` keeps its rows, `examiner.py` makes points and scores of them.

Nothing is imported here: numba has to come after vLLM.
"""
