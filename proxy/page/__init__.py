"""The page of a server that verifies, GET /toploc: `document.py` sends it, `route.py` has what it reads."""
