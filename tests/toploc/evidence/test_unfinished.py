"""Texts that end within a character, against the detokenizer that vLLM uses."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer, decoders, models
from tokenizers.decoders import DecodeStream

from toploc.evidence.unfinished import unfinished

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the alphabet of byte-level tokenizers: Ġ is a space, ð Ł ¦ ī the bytes of an owl, which is one character.
PIECES = ["far", "!", "Ġso", "Ġð", "ð", "Ł", "¦", "ī", "xð", "Ġ", "é"]
OWL = [4, 5, 6, 7]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(PIECES)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def streamed(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    stream = DecodeStream(ids=[])
    return "".join(stream.step(tokenizer, token) or "" for token in token_ids)


@pytest.mark.parametrize(
    ("token_ids", "end"),
    [
        ([2, 0, 1], ""),
        ([2, 0, 1, 3], " �"),
        ([2, 0, 1, 3, 5, 6], " �"),
        ([2, 0, 1, *OWL], ""),
        ([2, 0, 1, 8], "x�"),
        ([4], "�"),
        ([*[4] * 20], "�" * 20),
        ([0, 9, 4, 4], "��"),
        ([], ""),
    ],
)
def test_the_end_that_is_held_back(tokenizer: Tokenizer, token_ids: list[int], end: str) -> None:
    assert unfinished(token_ids, tokenizer.decode) == end
    assert streamed(tokenizer, token_ids) + end == tokenizer.decode(token_ids)


def test_any_tokens(tokenizer: Tokenizer) -> None:
    dice = random.Random(5)
    for _ in range(2000):
        token_ids = [dice.randrange(len(PIECES)) for _ in range(dice.randrange(1, 40))]
        end = unfinished(token_ids, tokenizer.decode)
        assert streamed(tokenizer, token_ids) + end == tokenizer.decode(token_ids), token_ids
