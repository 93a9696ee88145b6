"""Which tokens options leave at each place of an answer: what a grammar, allowed ids and bad words forbid, as bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from ..errors import ToplocError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_BYTES: Final = 2**26
"""Of an answer's different masks: 4,096 of them at a vocabulary of 128,000. Stops long answers under a grammar that
allows something else at each place, a gigabyte for 65,536 tokens, from filling the memory of verifier and worker."""

BITS: Final = 32
"""Tokens in a word of a mask."""

UNMASKED: Final = -1
"""In place of a mask's number: all tokens are left."""


class TooManyMasks(ToplocError):
    """An answer has more than `MASK_BYTES` of different masks."""


class Forbidden(NamedTuple):
    """The first token of an answer that an option forbids, and the option's name."""

    place: int
    option: str


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of n tokens.

    `rows`: int32 [k, words], each mask once. Bit i of word w is set where token 32 w + i is left, as vLLM's grammar
    back ends fill them; tokens beyond the last word are left too. `raw`: int32[n], the mask of a grammar, under which
    log-probabilities are taken (`vllm/v1/worker/gpu_model_runner.py` applies it before the sampler). `processed`: the
    same with allowed ids and bad words, under which tokens are drawn.
    """

    rows: NDArray[np.int32]
    raw: NDArray[np.int32]
    processed: NDArray[np.int32]

    def forbid(self, block: torch.Tensor, first: int, *, raw: bool = False) -> None:
        """Sets logits [rows, vocabulary], those of tokens from number `first` on, to -inf where they are not left."""
        numbers = (self.raw if raw else self.processed)[first : first + len(block)]
        if (numbers == UNMASKED).all():
            return
        words = np.where(numbers[:, None] == UNMASKED, np.int32(0), ~self.rows[np.maximum(numbers, 0)])
        out = np.unpackbits(words.view(np.uint8), axis=1, count=block.shape[1], bitorder="little").view(np.bool_)
        block[:, : out.shape[1]].masked_fill_(torch.from_numpy(out).to(block.device), -torch.inf)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What came of following an answer's tokens through options that logits alone do not replay.

    `masks`: None where these forbid nothing, or where there is one of the others. `forbidden`: a token that they do not
    leave. `problem`: why a verifier cannot follow.
    """

    masks: Masks | None = None
    forbidden: Forbidden | None = None
    problem: str = ""


UNCONSTRAINED: Final = Constraint()


class MaskTable:
    """Collects the masks of an answer, token by token.

    Args:
        most: bytes of different masks.
    """

    def __init__(self, most: int = MASK_BYTES) -> None:
        self._most = most
        self._numbers: dict[bytes, int] = {}
        self._raw: list[int] = []
        self._processed: list[int] = []

    def add(self, raw: NDArray[np.int32] | None, processed: NDArray[np.int32] | None) -> None:
        """The masks of the next token, int32[words] each; None where all are left. Raises TooManyMasks."""
        self._raw.append(self._number(raw))
        self._processed.append(self._number(processed))

    def masks(self) -> Masks | None:
        """None if none of the tokens has one."""
        if not self._numbers:
            return None
        rows = np.frombuffer(b"".join(self._numbers), dtype=np.int32).reshape(len(self._numbers), -1)
        return Masks(rows, np.array(self._raw, dtype=np.int32), np.array(self._processed, dtype=np.int32))

    def _number(self, row: NDArray[np.int32] | None) -> int:
        if row is None or (row == -1).all():
            return UNMASKED
        number = self._numbers.setdefault(row.tobytes(), len(self._numbers))
        if len(self._numbers) * row.nbytes > self._most:
            raise TooManyMasks(f"more than {self._most:,} bytes of masks, of tokens that the request's options leave")
        return number


def is_left(row: NDArray[np.int32] | None, token: int) -> bool:
    """Whether a mask leaves the token."""
    word, bit = divmod(token, BITS)
    return row is None or word >= len(row) or bool(int(row[word]) >> bit & 1)


def row_of(token_ids: NDArray[np.int64], words: int) -> NDArray[np.int32]:
    """The mask that leaves these tokens, int32[words]."""
    left = np.zeros(words * BITS, dtype=np.uint8)
    left[token_ids] = 1
    return np.packbits(left, bitorder="little").view(np.int32)


def without(row: NDArray[np.int32], token: int) -> None:
    """Takes a token out of a mask."""
    word, bit = divmod(token, BITS)
    row.view(np.uint32)[word] &= np.uint32(~(1 << bit) & 0xFFFFFFFF)
