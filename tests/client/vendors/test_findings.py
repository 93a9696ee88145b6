"""What one answer shows by itself, and what it has to be to show nothing."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from toploc_client.vendors.asking import Reply
from toploc_client.vendors.config import Requests
from toploc_client.vendors.findings import Counts, look, text_of
from toploc_client.vendors.questions import questions

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = {**questions(Requests(canaries=0), "seed")[0].body}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "X", "unit": "celsius"}'},
}
PLAIN: dict[str, Any] = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "one two"}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
CALLED: dict[str, Any] = {
    "choices": [{"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [CALL]}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39},
}


def found(
    request: dict[str, Any], response: dict[str, Any] | None, counts: Counts | None = None, **of: Any
) -> list[str]:
    known = counts or Counts(9, None if request.get("tools") else 2)
    finding = look(Reply("k", request, response, **of), known)
    return [f"{problem.check}: {problem.reason}" for problem in finding.problems]


def call(response: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = response["choices"][0]["message"]["tool_calls"][0]
    return made


def arguments(text: Any) -> Callable[[dict[str, Any]], object]:
    return lambda response: call(response)["function"].update(arguments=text)


def test_an_honest_answer_shows_nothing() -> None:
    for said in (2, 3):  # with its end and without
        usage = {"prompt_tokens": 9, "completion_tokens": said, "total_tokens": 9 + said}
        assert found({"max_tokens": 5}, {**PLAIN, "usage": usage}) == []
    assert found(TOOLS, CALLED) == []
    assert found({}, PLAIN, Counts()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r.pop("usage"), "usage: missing"),
        (lambda r: r["usage"].update(completion_tokens="3"), "usage: malformed"),
        (lambda r: r["usage"].update(total_tokens=13), "usage: sum"),
        (lambda r: r["usage"].update(prompt_tokens=8, total_tokens=11), "usage: prompt"),
        (lambda r: r["usage"].update(completion_tokens=4, total_tokens=13), "usage: completion"),
        (lambda r: r["usage"].update(completion_tokens=99, total_tokens=108), "finish: too_long"),
        (lambda r: r["choices"][0].update(finish_reason="length"), "finish: cut_short"),
        (lambda r: r["choices"][0].update(finish_reason=None), "finish: reason"),
        (lambda r: r["choices"][0].update(finish_reason="eos"), "finish: reason"),
        (lambda r: r["choices"][0].update(finish_reason="tool_calls"), "finish: no_call"),
        (lambda r: r["choices"][0]["message"].update(content=""), "finish: empty"),
        (lambda r: r.update(choices=[]), "finish: choices"),
        (lambda r: r.update(choices=[{"message": "hello"}]), "finish: choices"),
    ],
)
def test_usage_and_end(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    response = copy.deepcopy(PLAIN)
    change(response)
    assert reason in found({"max_tokens": 5}, response)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (arguments('{"city": "X", "unit": "celsius"'), "tools: json"),
        (arguments('["X", "celsius"]'), "tools: json"),
        (arguments({"city": "X", "unit": "celsius"}), "tools: json"),
        (arguments(None), "tools: json"),
        (arguments('{"city": "X"}'), "tools: schema"),
        (arguments('{"city": "X", "unit": "kelvin"}'), "tools: schema"),
        (arguments('{"city": "X", "unit": "celsius", "days": 9}'), "tools: schema"),
        (arguments('{"city": "X", "unit": "celsius", "country": "Y"}'), "tools: schema"),
        (lambda r: call(r)["function"].update(name="get_news"), "tools: unknown_tool"),
        (lambda r: call(r).update(id=""), "tools: form"),
        (lambda r: call(r).update(function="get_weather"), "tools: form"),
        (lambda r: r["choices"][0]["message"].update(tool_calls="get_weather"), "tools: form"),
        (lambda r: r["choices"][0].update(finish_reason="stop"), "finish: not_said"),
        (lambda r: r["choices"][0]["message"].update(content="<tool_call>{}"), "tools: leaked"),
    ],
)
def test_tool_calls(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    response = copy.deepcopy(CALLED)
    change(response)
    assert reason in found(TOOLS, response)


def test_valid_and_readable_calls_are_counted() -> None:
    response = copy.deepcopy(CALLED)
    calls = response["choices"][0]["message"]["tool_calls"]
    for text in ('{"city": "X"}', "{"):
        calls.append({**CALL, "function": {"name": "get_weather", "arguments": text}})
    finding = look(Reply("k", TOOLS, response), Counts())
    assert (finding.calls, finding.readable, finding.valid) == (3, 2, 1)


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "#/nowhere"}, 7])
def test_a_schema_of_the_request_that_is_none_accuses_nobody(schema: Any) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    assert found({"tools": tools}, CALLED) == []


def test_what_did_not_come() -> None:
    assert found({}, None, problem="HTTP 500") == ["answered: no_answer"]
    assert found({}, PLAIN, done=False) == ["finish: unended"]


@pytest.mark.parametrize("junk", [[], {}, None, 7, "text", {"choices": {}}, {"choices": [None]}, {"choices": [[]]}])
def test_a_response_that_is_junk(junk: Any) -> None:
    assert text_of(junk if isinstance(junk, dict) else None) is None
    response = junk if isinstance(junk, dict) else {"choices": junk, "usage": junk}
    assert "finish: choices" in found(TOOLS, response)


def test_the_text_is_all_of_its_tokens_only_by_itself() -> None:
    assert text_of(PLAIN) == "one two"
    assert text_of(CALLED) is None
    reasoned = json.loads(json.dumps(PLAIN))
    reasoned["choices"][0]["message"]["reasoning_content"] = "hm"
    assert text_of(reasoned) is None
