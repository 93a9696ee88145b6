"""One HTTP request of an API server: `middleware.py` opens its context, `responder.py` adds the field."""
