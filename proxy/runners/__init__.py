"""One small adapter per vLLM model runner; everything else is shared.

An adapter wraps methods of the runner's class when the plugin is loaded. Start with `v1.py`; `step.py` is what both
hand to the recorder.
"""
