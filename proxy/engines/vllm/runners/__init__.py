"""One small adapter per model runner of vLLM; everything else is shared. Nothing is imported here."""
