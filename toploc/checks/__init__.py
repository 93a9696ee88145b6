"""The checks of an answer: pure functions of the evidence and of what a verifier computed, one a file.

Each gives a `Check` (`toploc.report`) and raises nothing for what an answer may hold. `toploc.verifier.judge` calls
them in order. They know neither the engine that computed nor where the evidence came from. Start at `proofs.py`; the
docstring of each function has its steps, and the code has their numbers.
"""
