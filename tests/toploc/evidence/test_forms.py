"""Two engines' ways of writing one answer: explained, held, and never a way to write something else."""

from __future__ import annotations

from typing import Any

import pytest

from toploc.engine import Engine
from toploc.evidence.forms import Forms, in_their_form, is_other
from toploc.evidence.leaves import compare

VLLM, SGLANG, TRANSFORMERS = (Engine(name=name, version="1") for name in ("vllm", "sglang", "transformers"))
OTHER = Forms(texts={"so far! �"}, unfinished={" �"}, other=True)


def chat(content: Any = "so far! �", **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "length", **choice}], "usage": usage}


def test_who_is_another() -> None:
    assert is_other(SGLANG, VLLM)
    assert is_other(VLLM, SGLANG)
    assert is_other(SGLANG, TRANSFORMERS)
    assert is_other(None, SGLANG)
    assert not is_other(VLLM, TRANSFORMERS)
    assert not is_other(SGLANG, SGLANG)
    assert not is_other(None, None)


@pytest.mark.parametrize("other", [True, False])
def test_the_end_within_a_character_is_undecided_both_ways(other: bool) -> None:
    """Whoever is said to have answered."""
    forms = Forms(OTHER.texts, OTHER.unfinished, other)
    assert set(compare(chat("so far!"), chat(), forms=forms).first) == {"unfinished"}
    assert set(compare(chat(), chat("so far!"), forms=Forms({"so far!"}, {" �"}, other)).first) == {"unfinished"}


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("text", ["so far", "so far!�", "so far! � ", "so far! ��", "so near! �", "", None, "evil"])
def test_other_texts_differ(text: Any, other: bool) -> None:
    found = compare(chat(text), chat(), forms=Forms(OTHER.texts, OTHER.unfinished, other))
    assert set(found.first) == {"differs"}


def test_only_forms_are_excused() -> None:
    def kinds(claimed: dict[str, Any], rehearsed: dict[str, Any]) -> set[str]:
        return {*compare(claimed, rehearsed, forms=OTHER).first}

    parsed = chat("what a parser left")
    assert kinds(chat("what another parser left"), parsed) == {"form"}
    assert kinds(chat(finish_reason="stop"), chat()) == {"differs"}
    assert kinds(chat(finish_reason="tool_calls"), chat()) == {"form"}
    assert kinds({**chat(), "choices": []}, chat()) == {"differs"}
    assert kinds({**chat(), "usage": {**chat()["usage"], "completion_tokens": 9}}, chat()) == {"differs"}
    offsets = {"logprobs": {"text_offset": [0]}}
    assert kinds(chat(echoed=[0]), chat(echoed=[-1])) == {"form"}
    assert kinds(chat(**offsets), chat(**offsets)) == set()


def test_a_text_after_an_echo_is_bound() -> None:
    rehearsed = {"choices": [{"index": 0, "text": "Once upon so far! �"}]}
    assert set(compare({"choices": [{"index": 0, "text": "Once, evil"}]}, rehearsed, forms=OTHER).first) == {"differs"}


@pytest.mark.parametrize(
    ("claimed", "rehearsed", "holds"),
    [
        # SGLang's answer, vLLM's rehearsal.
        ({"matched_stop": 5, "finish_reason": "stop"}, {"stop_reason": None, "finish_reason": "stop"}, True),
        ({"matched_stop": 6, "finish_reason": "stop"}, {"stop_reason": None, "finish_reason": "stop"}, False),
        ({"matched_stop": "a", "finish_reason": "stop"}, {"stop_reason": "a", "finish_reason": "stop"}, True),
        ({"matched_stop": "b", "finish_reason": "stop"}, {"stop_reason": "a", "finish_reason": "stop"}, False),
        ({"matched_stop": None}, {"stop_reason": None}, True),
        ({"matched_stop": 5}, {"stop_reason": None}, False),
        # vLLM's answer, SGLang's rehearsal.
        ({"stop_reason": None, "finish_reason": "stop"}, {"matched_stop": 5, "finish_reason": "stop"}, True),
        ({"finish_reason": "stop"}, {"matched_stop": 5, "finish_reason": "stop"}, True),
        ({"stop_reason": 5, "finish_reason": "stop"}, {"matched_stop": 5, "finish_reason": "stop"}, True),
        ({"stop_reason": 6, "finish_reason": "stop"}, {"matched_stop": 5, "finish_reason": "stop"}, False),
        ({"stop_reason": "a", "finish_reason": "stop"}, {"matched_stop": "a", "finish_reason": "stop"}, True),
        ({"stop_reason": None, "finish_reason": "stop"}, {"matched_stop": "a", "finish_reason": "stop"}, False),
        ({"finish_reason": "stop"}, {"matched_stop": "a", "finish_reason": "stop"}, False),
        # One kind alone.
        ({"stop_reason": None, "finish_reason": "stop"}, {"stop_reason": "a", "finish_reason": "stop"}, False),
        ({"matched_stop": 6, "finish_reason": "stop"}, {"matched_stop": 5, "finish_reason": "stop"}, False),
    ],
)
def test_stops_under_both_names(claimed: dict[str, Any], rehearsed: dict[str, Any], holds: bool) -> None:
    said = chat(**claimed)
    assert compare(said, in_their_form(said, chat(**rehearsed), {0: [3, 4, 5]})).same is holds


def test_weights_that_are_named() -> None:
    """Of the first choice, whatever the operator calls them."""

    def same(claimed: Any, rehearsed: Any, end: int = 3) -> bool:
        said = {**chat(), **({"metadata": claimed} if claimed else {})}
        made = {**chat(), **({"metadata": rehearsed} if rehearsed else {})}
        return compare(said, in_their_form(said, made, {0: range(end), 1: range(7)})).same

    def named(*ends: int) -> dict[str, Any]:
        spans = [{"version": "v7", "start": start, "end": end} for start, end in zip((0, *ends), ends, strict=False)]
        return {"weight_version": "v7", "weight_versions": spans}

    assert same(named(3), None)
    assert same({"weight_version": "v7"}, None)
    assert same(None, named(3))
    assert same(named(3), named(3))
    assert not same(named(4), None)
    assert not same(named(2, 3), None)
    assert not same({**named(3), "also": 1}, None)
    assert not same(named(4), named(3))


def test_counts_of_reasoning() -> None:
    def counted(count: int, **message: Any) -> dict[str, Any]:
        made = chat()
        made["usage"]["reasoning_tokens"] = count
        made["choices"][0]["message"].update(message)
        return made

    def first(claimed: dict[str, Any], rehearsed: dict[str, Any]) -> set[str]:
        return {*compare(claimed, in_their_form(claimed, rehearsed, {})).first}

    assert first(counted(0), chat()) == set()
    assert first(chat(), counted(0)) == set()
    assert first(chat(), counted(2)) == {"missing"}
    assert first(counted(2), chat()) == {"unknown"}
    assert first(counted(2), counted(0)) == {"differs"}
    thought = counted(0, reasoning="Hm.")
    del thought["usage"]["reasoning_tokens"]
    assert first(counted(0, reasoning="Hm."), thought) == {"unknown"}
