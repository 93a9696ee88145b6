"""What the check finds of sampled text without a seed, as it was measured: shares of answers by other writers."""

from __future__ import annotations

from typing import Final

FOUND: Final = {
    8: {"4-bit weights": 0.0, "a fine-tuned copy": 0.21},
    32: {"4-bit weights": 0.0, "a fine-tuned copy": 0.88},
    64: {"4-bit weights": 0.0, "a fine-tuned copy": 0.92},
    128: {"4-bit weights": 0.0, "a fine-tuned copy": 0.98},
    256: {"4-bit weights": 0.0, "a fine-tuned copy": 1.0},
}
"""By tokens and writer, of the bundled model at temperature 1 (docs/evidence.md, text written otherwise)."""


def found_at(tokens: int) -> str:
    """In words: what share this check finds of answers of so many tokens, or of the most below that were measured."""
    lengths = [length for length in FOUND if length <= tokens]
    if not lengths:
        return f"what this finds was not measured below {min(FOUND)} tokens"
    shares = ", ".join(f"{share:.0%} by {writer}" for writer, share in FOUND[max(lengths)].items())
    return f"of answers of {max(lengths)} tokens this finds {shares} (toploc-mini at temperature 1, docs/evidence.md)"
