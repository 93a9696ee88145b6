"""Which two-digit additions the model never sees.

The split is by a hash of the unordered pair of operands: a held-out pair occurs nowhere in the training text,
in neither order, whatever the wording.
"""

from random import Random
from zlib import crc32


def held_out(a: int, b: int) -> bool:
    """Whether a + b belongs to the evaluation: two-digit pairs only, 10 % of them, both orders alike."""
    low, high = sorted((a, b))
    return low >= 10 and high <= 99 and crc32(f"{low}+{high}".encode()) % 10 == 0


def held_out_pairs() -> list[tuple[int, int]]:
    return [(a, b) for a in range(10, 100) for b in range(10, 100) if held_out(a, b)]


def operands(rng: Random) -> tuple[int, int]:
    low = 10 if rng.random() < 0.8 else 0
    while True:
        a, b = rng.randint(low, 99), rng.randint(low, 99)
        if not held_out(a, b):
            return a, b
