"""What the check finds of sampled text without a seed, as it was measured: shares of answers by other writers."""

from __future__ import annotations

from typing import Final

FOUND: Final = {
    8: {"4-bit weights": 0.0, "a fine-tuned copy": 22.5, "greedy decoding": 0.0},
    32: {"4-bit weights": 0.0, "a fine-tuned copy": 87.5, "greedy decoding": 12.5},
    64: {"4-bit weights": 0.0, "a fine-tuned copy": 92.5, "greedy decoding": 90.0},
    128: {"4-bit weights": 0.0, "a fine-tuned copy": 97.5, "greedy decoding": 97.5},
    256: {"4-bit weights": 0.0, "a fine-tuned copy": 97.5, "greedy decoding": 100.0},
}
"""Per cent, by tokens and writer, of the bundled model at temperature 1 (docs/evidence.md, text written otherwise)."""


def found_at(tokens: int) -> str:
    """In words: what share this check finds of answers of so many tokens, or of the most below that were measured."""
    lengths = [length for length in FOUND if length <= tokens]
    if not lengths:
        return f"what this finds was not measured below {min(FOUND)} tokens"
    shares = ", ".join(f"{share:g} % by {writer}" for writer, share in FOUND[max(lengths)].items())
    return f"of answers of {max(lengths)} tokens this finds {shares} (toploc-mini at temperature 1, docs/evidence.md)"
