"""`toploc doctor`: `host.py` and `engine.py` find out, `command.py` prints."""
