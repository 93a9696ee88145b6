"""All that knows vLLM. It calls us in `plugin.py`, in every process, and in `endpoint.py`, in API servers.

From there: `startup.py`, `generate.py` and `early.py` in an API server, `runners/` and `worker.py` in a worker,
`prefill.py` and `rehearsal.py` for verifications. Nothing is imported here.
"""
