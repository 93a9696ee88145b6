"""Modules of 0.1 that README and docs showed, still importable as `toploc.NAME`; `toploc/__init__.py` puts this folder
on its path."""
