"""`toploc vendors`: what providers of one model do with the same requests, side by side, from their answers alone.

Start at `command.py`. `config.py` is the file of vendors, `questions.py` what they are asked, `asking.py` asks them,
`findings.py` looks at each answer, `comparison.py` adds up and compares, and `page.py` shows it.
"""
