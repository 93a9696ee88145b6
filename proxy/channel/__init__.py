"""Between API servers and workers. Start at `messages.py`, what is said; `client.py` asks, `service.py` answers.

Nothing is imported here: numba has to come after vLLM.
"""
