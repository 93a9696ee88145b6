"""Error pooled over chunks and answers, which shows what no single chunk does. Start at `spread.py`; `cusum.py` sums it
up over answers, `alarm.py` says from where on that is an alarm."""
