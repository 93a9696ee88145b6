"""The prover: plugins that capture an engine's hidden states, and the HTTP side that delivers proofs and verifies.

Start with `engines/vllm/serve/command.py`, which is `toploc serve`. Then follow an answer: `answers/` and
`engines/vllm/generate.py` in the API server, `channel/` across the process border, `capture/` in the worker. A
verification begins in `verify/route.py` and ends in `examine/`.
"""
