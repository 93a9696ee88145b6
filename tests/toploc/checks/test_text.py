"""Where in a text its chunks are, so that a reader sees what each verdict is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from toploc.checks.text import _offsets, _sizes
from toploc.protocol import num_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check
    from toploc.verifier.prefill import TransformersPrefill


@pytest.mark.parametrize(
    "name",
    ["greedy", "sampled", "two-choices", "stop-string", "stop-string-included", "special-tokens", "completion-echo"],
)
def test_offsets_cut_a_text_into_its_chunks(
    verify: Verify, recorded: Callable[[str], dict[str, Any]], find: Callable[..., Check], prefill: Any, name: str
) -> None:
    evidence = recorded(name)
    report = verify(evidence)
    for choice in evidence["response"]["choices"]:
        check = find(report, "text", choice["index"])
        if check.status != "passed":
            continue
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        ids = evidence["response"]["toploc_proofs"]["choices"][choice["index"]]["token_ids"]
        offsets: Any = check.figures["chunk_offsets"]
        assert len(offsets) == num_chunks(len(ids)) + 1
        assert offsets == sorted(offsets)
        assert offsets[-1] == len(text)
        assert (offsets[0] > 0) == bool(evidence["request"].get("echo"))
        skip = evidence["request"].get("skip_special_tokens", True)
        for place in range(len(offsets) - 2):
            chunk = prefill.tokenizer.decode(ids[32 * place : 32 * place + 32], skip_special_tokens=skip)
            assert text[offsets[place] : offsets[place + 1]] == chunk


def test_a_character_of_two_chunks_is_the_later_ones(prefill: TransformersPrefill) -> None:
    text = "x" + "鱻🦉 é" * 40
    ids = prefill.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 4 * 32

    def decode(token_ids: list[int]) -> str:
        return prefill.tokenizer.decode(token_ids)

    sizes = _sizes([], ids, decode)
    offsets = _offsets(0, len(text), sizes, len(text))
    assert sum(sizes) == len(text)
    for place, end in enumerate(offsets[1:-1], 1):
        assert text[:end] == decode(ids[: 32 * place]).rstrip("\N{REPLACEMENT CHARACTER}")


def test_a_text_that_ends_within_a_chunk(prefill: TransformersPrefill) -> None:
    """Of a stop string: what was generated goes on, the text does not."""
    assert _offsets(5, 105, [40, 40, 20], 60) == [5, 45, 60, 60]
    # The first chunk takes the space that the tokenizer dropped.
    assert _offsets(0, 99, [40, 40, 20], 99) == [0, 39, 79, 99]
