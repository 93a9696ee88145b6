"""`toploc calibrate`: thresholds from honest answers. Start at `command.py`; `bounds.py` and `pooled.py` compute."""
