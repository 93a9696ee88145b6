"""The prover: vLLM plugins that capture hidden states, and the HTTP side that delivers their proofs.

Start with `serve.py` (the command), then follow an answer: `middleware.py` and `generate.py` in the API server,
`channel.py` to `service.py` across the process border, `recorder.py` and `runners/` in the worker.
"""
