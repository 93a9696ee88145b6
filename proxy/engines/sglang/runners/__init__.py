"""What is wrapped in a scheduler, which is also the model's worker. Nothing is imported here."""
