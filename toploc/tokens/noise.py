"""The noise of samplers that draw it from a seed: Gumbel variables g, of which argmax(l / T + g) is the sampled token.

vLLM has had several, which differ by version, model runner and device; `toploc_proofs.sampler` names one. Each is known
here by what it computes, and a server names it only after it has seen its own sampler choose by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch

from ..kernels.device import has_kernels

if TYPE_CHECKING:
    from collections.abc import Callable

MASK32: Final = 0xFFFFFFFF
"""The bits of a word, in arithmetic of 64."""

LEAST_SEED: Final = -(2**63)
"""vLLM keeps seeds as int64."""

MOST_SEED: Final = 2**64 - 1
"""vLLM adds the choice's number to the request's int64; torch's generators take what comes up to here."""


class Noise(Protocol):
    """The noise of one answer."""

    def rows(self, first: int, count: int, vocabulary: int, device: torch.device) -> torch.Tensor:
        """float64[count, vocabulary], for the answer's tokens from number `first` on. Asked for in order."""


@dataclass(slots=True)
class SplitMix64:
    """The first model runner on CPUs, vLLM 0.32: a draw from the request's torch.Generator seeds each token.

    Sources: `forward_cpu` in vllm/v1/sample/ops/topk_topp_sampler.py and its kernel `fused_gumbel_argmax`; SplitMix64
    is of Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """

    generator: torch.Generator

    @classmethod
    def of(cls, seed: int, position: int) -> SplitMix64:  # noqa: ARG003
        return cls(torch.Generator().manual_seed(seed))

    def rows(self, first: int, count: int, vocabulary: int, device: torch.device) -> torch.Tensor:  # noqa: ARG002
        # One at a time, as the sampler draws them: a draw of several need not give the same numbers.
        draws = [torch.randint(0, 2**31, (1,), generator=self.generator) for _ in range(count)]
        keys = _splitmix(torch.cat(draws).to(device))
        steps = torch.arange(1, vocabulary + 1, device=device) * _signed(0x9E3779B97F4A7C15)
        bits = _shift(_splitmix(keys[:, None] + steps), 11)
        return _gumbel((bits.double() + 0.5) * 2.0**-53)


@dataclass(frozen=True, slots=True)
class Murmur3:
    """The second model runner, vLLM 0.32: a hash of seed, position and token.

    Source: `murmur3_uniform32` and `gumbel_noised_argmax` in vllm/v1/worker/gpu/sample/gumbel.py, whose logarithms are
    of single precision; the hash is MurmurHash3_x86_32 of four words.
    """

    seed: int
    position: int
    """Of the prompt's last token, at which the first token is sampled."""

    @classmethod
    def of(cls, seed: int, position: int) -> Murmur3:
        return cls(seed, position)

    def rows(self, first: int, count: int, vocabulary: int, device: torch.device) -> torch.Tensor:
        positions = torch.arange(first, first + count, device=device)[:, None] + self.position
        state = torch.zeros_like(positions)
        for word in (self.seed & MASK32, (self.seed >> 32) & MASK32, positions & MASK32):
            state = _murmur_mix(state, torch.as_tensor(word, device=device))
        if has_kernels(state):
            from ..kernels.noise import murmur_words

            hashed = murmur_words(state[:, 0], vocabulary)
        else:
            hashed = _murmur_end(_murmur_mix(state, torch.arange(vocabulary, device=device)) ^ 16)
        # -log(1 - u), exact where u is small, which is where the largest noise comes from.
        return -torch.log(-torch.log1p(-(hashed.double() + 0.5) * 2.0**-32))


@dataclass(frozen=True, slots=True)
class Philox:
    """The second model runner, vLLM 0.26: Triton's generator, seeded for each position by itself.

    Sources: `gumbel_block_argmax` in vllm/v1/worker/gpu/sample/gumbel.py, triton/language/random.py; Philox-4x32-10 is
    of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    seed: int
    position: int

    @classmethod
    def of(cls, seed: int, position: int) -> Philox:
        return cls(seed, position)

    def rows(self, first: int, count: int, vocabulary: int, device: torch.device) -> torch.Tensor:
        positions = torch.arange(first, first + count, device=device)[:, None] + self.position
        low, high = (torch.tensor(word & MASK32, device=device) for word in (self.seed, self.seed >> 32))
        seeds = _philox(low, high, positions & MASK32, positions >> 32)
        if has_kernels(seeds):
            from ..kernels.noise import philox_words

            words = philox_words(seeds[:, 0], vocabulary)
        else:
            nothing = torch.zeros_like(low)
            words = _philox(seeds, nothing, torch.arange(vocabulary, device=device), nothing)
        signed = words - ((words >> 31) << 32)
        # In single precision, as Triton's `rand`.
        uniform = torch.where(signed < 0, -signed - 1, signed).float() * 4.6566127342e-10
        return -torch.log(-torch.log1p(-uniform.clamp(min=4.6566127342e-10).double()))


SAMPLERS: Final[dict[str, Callable[[int, int], Noise]]] = {
    "splitmix64": SplitMix64.of,
    "murmur3": Murmur3.of,
    "philox": Philox.of,
}
"""By the name in `toploc_proofs.sampler`: from the seed and the position of the prompt's last token."""


def noise_of(sampler: str | None, seed: int | None, position: int) -> Noise | None:
    """The noise of an answer, or None if it cannot be replayed: there is no seed, or the sampler is none of these."""
    make = SAMPLERS.get(sampler or "")
    if make is None or seed is None or not LEAST_SEED <= seed <= MOST_SEED:
        return None
    return make(seed, position)


def _gumbel(uniform: torch.Tensor) -> torch.Tensor:
    return -torch.log(-torch.log(uniform))


def _signed(value: int) -> int:
    """64 bits as torch's int64, whose sums and products wrap."""
    return value - 2**64 if value >= 2**63 else value


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, of unsigned 64 bits."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix(value: torch.Tensor) -> torch.Tensor:
    value = (value ^ _shift(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shift(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shift(value, 31)


def _rotate(value: torch.Tensor, bits: int) -> torch.Tensor:
    """To the left, of 32 bits."""
    return ((value << bits) | (value >> (32 - bits))) & MASK32


def _murmur_mix(state: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
    word = _rotate((word * 0xCC9E2D51) & MASK32, 15) * 0x1B873593 & MASK32
    return _rotate(state ^ word, 13) * 5 + 0xE6546B64 & MASK32


def _murmur_end(value: torch.Tensor) -> torch.Tensor:
    value = (value ^ (value >> 16)) * 0x85EBCA6B & MASK32
    value = (value ^ (value >> 13)) * 0xC2B2AE35 & MASK32
    return value ^ (value >> 16)


def _philox(low: torch.Tensor, high: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The first of four words, for a key of two words and a counter of two, and two that are 0."""
    nothing = torch.zeros_like(first + low)
    counter = [first + nothing, second + nothing, nothing, nothing]
    for _ in range(10):
        one, two = counter[0], counter[2]
        counter = [
            _high(0xCD9E8D57, two) ^ counter[1] ^ low,
            two * 0xCD9E8D57 & MASK32,
            _high(0xD2511F53, one) ^ counter[3] ^ high,
            one * 0xD2511F53 & MASK32,
        ]
        low, high = low + 0x9E3779B9 & MASK32, high + 0xBB67AE85 & MASK32
    return counter[0]


def _high(factor: int, value: torch.Tensor) -> torch.Tensor:
    """The upper 32 bits of a product of 32 bits each, which does not fit into int64 as a whole."""
    return (value * (factor >> 16) + (value * (factor & 0xFFFF) >> 16)) >> 16
