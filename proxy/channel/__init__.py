"""Between API servers and workers: `messages.py` is what is said, `client.py` asks, `service.py` answers."""
