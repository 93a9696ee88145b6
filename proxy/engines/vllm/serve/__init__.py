"""`toploc serve`: `command.py` runs `vllm serve` with our plugins, `refusals.py` says what cannot be proven."""
