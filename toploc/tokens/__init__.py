"""What a verifier's logits say of an answer's tokens. Start at `scoring.py`; nothing is imported here."""
