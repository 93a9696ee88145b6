"""The bundled model: how it was made (`train.py`), how it is altered (`alter.py`), and how its thresholds were taken.

Run a module by `python -m models.NAME` from the repository's root.
"""
