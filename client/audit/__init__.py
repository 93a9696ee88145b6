"""`toploc audit`: reports on a file of answers, added up. Start at `run.py`; `command.py` is the command line.

`dispatch.py` and `cluster.py` have answers verified, `journal.py` keeps the reports, `entry.py` is one of them, and
`table.py`, `alarms.py` and `page/` add them up.
"""
