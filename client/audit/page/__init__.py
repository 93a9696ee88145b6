"""The report of an audit as one HTML file: `page.py` writes it, `report.*` are what it shows."""
