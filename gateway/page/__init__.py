"""The gateway's page, GET /toploc: `state.py` is what it shows of upstreams, `page.py` its routes."""
