"""From rows of hidden states to features of proofs, for any engine. Start at `step.py` and `recorder.py`.

Nothing is imported here: numba has to come after vLLM.
"""
