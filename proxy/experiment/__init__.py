"""The original's experiment: `generate.py` asks a model, `validate.py` checks its answers."""
