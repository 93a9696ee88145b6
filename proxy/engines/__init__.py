"""One folder an engine, with the same file names in each. Nothing else of this package knows an engine.

What each has to do is written where it is used: `capture/step.py`, `examine/examiner.py` (Head), `verify/engine.py`,
`tracing.py`.
"""
