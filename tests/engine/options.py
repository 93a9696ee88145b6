"""How the servers of the tests are started."""

from __future__ import annotations

NAME = "toploc-mini"

# Memory for 64 sequences of full length. Some tests have six engines at once, which with a GiB each, the least that
# vLLM's environment variable can say, fill a machine of 24.
CACHE = ["--kv-cache-memory-bytes", "256M"]
SERVE = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32", *CACHE]
# The bundled model has no tokens for thoughts, but two that mark what a tool gave.
THINKING = [
    "--reasoning-config",
    '{"reasoning_start_str": "<tool_response>", "reasoning_end_str": " so</tool_response>"}',
]
