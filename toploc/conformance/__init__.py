"""Conformance: vectors in `vectors/`, and a runner that puts them to any program (docs/conformance.md).

`cases.py` reads the vectors, `program.py` asks a program, `answers.py` compares, `table.py` shows what failed: these
need nothing but Python. `ours.py` is this library behind the same door.
"""
