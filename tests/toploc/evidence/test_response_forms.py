"""One answer as `/v1/responses` of either kind of engine writes it: held by the other, and never a way to say more."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from toploc.evidence.forms import Forms
from toploc.evidence.leaves import compare
from toploc.evidence.response_forms import in_its_form
from toploc.tokens.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
REQUEST: Json = {"model": "mini", "input": "What is 17 + 25?", "temperature": 0, "max_output_tokens": 100}
TEXT = "17 + 25 = 42."


def written(*, phase: str | None, usage: Json, **fields: Any) -> Json:
    content = [{"annotations": [], "text": TEXT, "type": "output_text", "logprobs": None}]
    message = {"id": "msg_1", "content": content, "role": "assistant", "status": "completed", "type": "message"}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1796081220,
        "model": "mini",
        "output": [{**message, "phase": phase}],
        "status": "completed",
        "usage": {"input_tokens": 36, "output_tokens": 12, "total_tokens": 48, **usage},
        "parallel_tool_calls": True,
        "tools": [],
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": 100,
        "previous_response_id": None,
        "temperature": 0.0,
        "truncation": "disabled",
        "user": None,
        **fields,
    }


SGLANG = written(
    phase="final_answer",
    usage={
        "input_tokens_details": {"cached_tokens": 24, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
    error=None,
    tool_choice="auto",
    reasoning={"effort": None, "summary": None},
    store=True,
    text={"format": {"type": "text"}},
    top_p=None,
    metadata={},
)
VLLM = written(
    phase=None,
    usage={
        "input_tokens_details": {"cached_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": []},
    },
    metadata=None,
    tool_choice="none",
    top_p=1.0,
    background=False,
    max_tool_calls=None,
    prompt=None,
    reasoning=None,
    service_tier="auto",
    text=None,
    top_logprobs=None,
    presence_penalty=0.0,
    frequency_penalty=0.0,
)
PAIRS = pytest.mark.parametrize(("claimed", "rehearsed"), [(VLLM, SGLANG), (SGLANG, VLLM)], ids=["vLLM's", "SGLang's"])


def kinds(claimed: Json, rehearsed: Json, sampling: Sampling | None = Sampling(), **asked: Any) -> set[str]:  # noqa: B008 (frozen)
    made = in_its_form(claimed, rehearsed, {**REQUEST, **asked}, sampling)
    return {*compare(claimed, made, forms=Forms({TEXT}, other=True)).first}


@PAIRS
def test_one_answer_in_either_form(claimed: Json, rehearsed: Json) -> None:
    before = copy.deepcopy(rehearsed)
    assert kinds(claimed, rehearsed) == set()
    assert kinds(claimed, claimed) == set()
    assert rehearsed == before


@PAIRS
@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(status="incomplete"),
        lambda r: r.update(tool_choice="required"),
        lambda r: r.update(instructions="Be brief."),
        lambda r: r.update(temperature=1.0),
        lambda r: r.update(top_p=0.5),
        lambda r: r.update(text={"format": {"type": "json_object"}}),
        lambda r: r.update(reasoning={"effort": "high", "summary": None}),
        lambda r: r.update(metadata={"user": "1"}),
        lambda r: r.update(store=False),
        lambda r: r.update(background=True),
        lambda r: r.update(presence_penalty=0.5),
        lambda r: r["output"][0].update(phase="commentary"),
        lambda r: r["output"][0].update(status="incomplete"),
        lambda r: r["usage"]["output_tokens_details"].update(tool_output_tokens=3),
        lambda r: r["usage"]["output_tokens_details"].update(reasoning_tokens=3),
        lambda r: r.update(note="anything"),
    ],
)
def test_nothing_else_passes(claimed: Json, rehearsed: Json, change: Callable[[Json], object]) -> None:
    changed = copy.deepcopy(claimed)
    change(changed)
    found = kinds(changed, rehearsed)
    assert found
    assert "differs" not in found


@PAIRS
def test_text_and_counts_are_rejected(claimed: Json, rehearsed: Json) -> None:
    for change in (
        lambda r: r["output"][0]["content"][0].update(text="17 + 25 = 43."),
        lambda r: r["usage"].update(output_tokens=13),
    ):
        changed = copy.deepcopy(claimed)
        change(changed)
        assert "differs" in kinds(changed, rehearsed)


def test_what_the_request_says_is_repeated() -> None:
    stored = {**SGLANG, "store": False}
    assert kinds(stored, VLLM, store=False) == set()
    assert kinds(SGLANG, VLLM, store=False) == {"form"}
    named = {**VLLM, "frequency_penalty": 0.5}
    assert kinds(named, SGLANG, frequency_penalty=0.5) == set()
    assert kinds(VLLM, SGLANG, frequency_penalty=0.5) == {"form"}
    assert kinds(VLLM, SGLANG, tool_choice="auto") == kinds(VLLM, SGLANG, tools=[{"type": "function"}]) == {"form"}
    assert kinds(SGLANG, {**VLLM, "metadata": {"a": "b"}}, metadata={"a": "b"}) == {"missing"}


def test_a_temperature_that_the_request_leaves_open_is_the_verifiers() -> None:
    """SGLang does not say which it was."""
    left = {"temperature": None}
    assert kinds({**VLLM, "temperature": 0.7}, {**SGLANG, **left}, Sampling(temperature=0.7), **left) == set()
    assert kinds({**VLLM, "temperature": 1.0}, {**SGLANG, **left}, Sampling(temperature=0.7), **left) == {"form"}
    assert kinds({**VLLM, "temperature": 1.0}, {**SGLANG, **left}, None, **left) == {"form"}
    assert kinds({**SGLANG, **left}, {**VLLM, "temperature": 1.0}, **left) == set()
    assert kinds({**SGLANG, **left}, VLLM) == {"form"}


def test_a_message_beside_a_call_has_the_phase_that_its_engine_says() -> None:
    call = {"type": "function_call", "name": "add", "arguments": "{}"}
    claimed = {**SGLANG, "output": [*SGLANG["output"], call]}
    assert kinds(claimed, {**VLLM, "output": [*VLLM["output"], call]}) == {"form"}


@pytest.mark.parametrize("junk", [None, 5, "x", [], [None], [{"type": "message"}, 3]])
def test_junk_raises_nothing(junk: Any) -> None:
    for name in ("output", "usage", "tool_choice", "text", "reasoning", "metadata", "store"):
        in_its_form({**VLLM, name: junk}, SGLANG, REQUEST, None)
        in_its_form(SGLANG, {**VLLM, name: junk}, REQUEST, None)
