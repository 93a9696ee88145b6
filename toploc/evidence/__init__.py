"""A stored request and response: `parse.py` reads them, `evidence.py` is what they become, `file.py` keeps them."""
