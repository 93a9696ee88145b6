"""What outlives the process: `database.py` is a connection, `answers.py` and `standing.py` what is kept over it."""
