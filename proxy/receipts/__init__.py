"""Signed answers: `signing.py` signs, `delivered.py` puts together what a stream has said, `store.py` keeps."""
