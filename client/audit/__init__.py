"""`toploc audit`: reports on a file of answers, added up. Start at `run.py`; `command.py` is the command line."""
