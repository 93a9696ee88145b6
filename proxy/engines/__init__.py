"""One folder an engine, with the same names in each."""
