"""`toploc sglang`: `command.py` runs SGLang's server with our plugin, `refusals.py` says what cannot be proven."""
