"""Two responses compared leaf by leaf: what differs, what is foreign, what is free, and what says the same."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from toploc.evidence.leaves import Logprobs, compare
from toploc.leaves import FREE, pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795492616,
    "model": "mini",
    "system_fingerprint": None,
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "stop_reason": None,
            "message": {
                "role": "assistant",
                "content": "Let me add.",
                "refusal": None,
                "tool_calls": [
                    {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'}}
                ],
            },
        },
        {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": "42", "tool_calls": []}},
    ],
    "usage": {"prompt_tokens": 35, "completion_tokens": 20, "total_tokens": 55, "prompt_tokens_details": None},
}


def kinds(change: Callable[[dict[str, Any]], object]) -> dict[str, str]:
    """Where the changed response first differs from the rehearsed one, by kind."""
    claimed = copy.deepcopy(CHAT)
    change(claimed)
    return {kind: found.path for kind, found in compare(claimed, CHAT).first.items()}


def test_what_agrees_is_counted_and_listed() -> None:
    found = compare(CHAT, CHAT)
    assert found.same
    assert found.leaves == 15
    assert "choices[].message.tool_calls[].function.arguments" in found.rehearsed
    assert list(found.free) == ["id", "created", "model", "choices[].message.tool_calls[].id"]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, name))
        elif item is not None:
            yield (*path, name), item


def put(value: Any, path: tuple[str | int, ...], change: Callable[[Any, str | int], object]) -> None:
    for name in path[:-1]:
        value = value[name]
    change(value, path[-1])


@pytest.mark.parametrize("how", ["changed", "removed", "another type", "neighbour", "as a list"])
def test_no_leaf_can_be_touched_but_the_free(how: str) -> None:
    def change(parent: Any, name: str | int) -> None:
        value = parent[name]
        if how == "changed":
            parent[name] = value + (1 if isinstance(value, int) else "x")
        elif how == "removed":
            del parent[name]
        elif how == "another type":
            parent[name] = str(value) if isinstance(value, int) else 5
        elif how == "neighbour":
            parent["also"] = value
        else:
            parent[name] = [value]

    for path, _ in leaves(CHAT):
        claimed = copy.deepcopy(CHAT)
        put(claimed, path, change)
        is_free = pattern_of(path) in FREE and how not in ("neighbour", "as a list")
        assert compare(claimed, CHAT).same is is_free, path


def test_the_three_kinds_of_differences() -> None:
    assert kinds(lambda r: r["usage"].update(total_tokens=55_000)) == {"differs": "usage.total_tokens"}
    assert kinds(lambda r: r["choices"][1].pop("finish_reason")) == {"missing": "choices[1].finish_reason"}
    assert kinds(lambda r: r["choices"][0]["message"].update(audio={"data": "AAAA"})) == {
        "unknown": "choices[0].message.audio.data"
    }
    assert kinds(lambda r: r["choices"][0]["message"].update(refusal="No.")) == {
        "differs": "choices[0].message.refusal"
    }
    both = kinds(lambda r: r.update(choices=[], content="x"))
    assert both == {"differs": "choices", "unknown": "content"}


def test_lists_have_a_length_and_an_order() -> None:
    assert kinds(lambda r: r["choices"].append({})) == {"differs": "choices"}
    assert kinds(lambda r: r["choices"].reverse())["differs"].startswith("choices[0].")
    assert kinds(lambda r: r["choices"][1]["message"].update(tool_calls=[{}])) == {
        "differs": "choices[1].message.tool_calls"
    }


def test_null_nothing_and_an_empty_list_say_the_same() -> None:
    def change(response: dict[str, Any]) -> None:
        del response["system_fingerprint"], response["choices"][1]["message"]["tool_calls"]
        response["choices"][1]["message"]["annotations"] = []
        response["choices"][1]["stop_reason"] = None

    assert kinds(change) == {}
    assert kinds(lambda r: r.update(error={})) == {"unknown": "error"}


def test_numbers_are_compared_as_json_has_them() -> None:
    assert kinds(lambda r: r["usage"].update(total_tokens=55.0)) == {}
    assert kinds(lambda r: r["choices"][1].update(index=True)) == {"differs": "choices[1].index"}


@pytest.mark.parametrize(
    "value",
    ["x" * 257, {"text": "anything"}, ["anything"]],
    ids=["a whole text", "an object", "a list"],
)
def test_a_free_leaf_is_short_and_a_leaf(value: Any) -> None:
    assert kinds(lambda r: r.update(id=value))["differs"].startswith("id")


def test_free_leaves_below_what_the_other_does_not_have() -> None:
    details: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": 16}}
    assert kinds(lambda r: r["usage"].update(details)) == {}
    rehearsed = copy.deepcopy(CHAT)
    del rehearsed["usage"]["prompt_tokens_details"]
    claimed = copy.deepcopy(rehearsed)
    claimed["usage"] |= details
    assert compare(claimed, rehearsed).same
    claimed["usage"]["prompt_tokens_details"]["note"] = "anything"
    assert not compare(claimed, rehearsed).same
    # The items of a list say something by being there.
    assert not compare({**CHAT, "output": [{"id": "x"}]}, CHAT).same
    assert not compare({**CHAT, "output": {"[]": {"id": "x"}}}, CHAT).same


def test_what_is_not_bound_is_listed_and_not_compared() -> None:
    rehearsed = copy.deepcopy(CHAT)
    del rehearsed["choices"][0]["message"]["tool_calls"]
    found = compare(CHAT, rehearsed, unbound={"choices[].message.tool_calls"})
    assert found.same
    assert list(found.unbound) == ["choices[].message.tool_calls"]


def test_what_is_not_bound_within_an_object_that_was_not_rehearsed() -> None:
    """As SGLang's `sglext`, where other fields stand beside those that the engine alone knows."""

    def found(sglext: Any, unbound: tuple[str, ...] = ("sglext.routed_experts",)) -> tuple[list[str], dict[str, str]]:
        one = compare({**CHAT, "sglext": sglext}, CHAT, unbound=unbound)
        return list(one.unbound), {kind: difference.path for kind, difference in one.first.items()}

    experts, ids = {"routed_experts": "AAEC"}, {"output_ids": [[5, 7]]}
    cached = {"cached_tokens_details": {"device": 16, "host": 0, "storage": 3, "storage_backend": "file"}}
    assert found(experts) == (["sglext.routed_experts"], {})
    assert found(experts | cached) == (["sglext.routed_experts"], {})
    assert found(cached) == found(cached, ()) == ([], {})
    assert found(experts | ids) == (["sglext.routed_experts"], {"unknown": "sglext.output_ids[0][0]"})
    assert found({"routed_experts": "AAEC", "note": {}})[1] == {"unknown": "sglext.note"}
    for nothing in ({}, {"routed_experts": None}, [experts], "AAEC", {"cached_tokens_details": {"text": "x"}}):
        assert found(nothing)[1].keys() == {"unknown"}, nothing


def test_without_a_field() -> None:
    assert compare({**CHAT, "toploc_proofs": {"x": 1}}, CHAT, without=("toploc_proofs",)).same


SCORED = {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -2.0}]}}]}


def test_log_probabilities_are_compared_up_to_noise() -> None:
    claimed = copy.deepcopy(SCORED)
    places = claimed["choices"][0]["logprobs"]["content"]
    places[0]["logprob"], places[1]["logprob"] = -0.75, -2
    found = compare(claimed, SCORED, logprobs=Logprobs(1.0))
    assert found.same
    assert found.noise == [0.25, 0.0]
    places[0]["token"] = "c"
    assert not compare(claimed, SCORED, logprobs=Logprobs(1.0)).same
    without = compare(claimed, SCORED)
    assert without.same
    assert list(without.unbound) == ["choices[].logprobs"]
    # Of a field that the rehearsal does not have there is nothing to be repeated.
    assert not compare(SCORED, {"choices": [{}]}).same


def test_a_difference_is_short_and_printable() -> None:
    claimed = {**CHAT, "object": "x" * 10_000}
    difference = compare(claimed, CHAT).first["differs"]
    assert (difference.path, difference.rehearsed) == ("object", '"chat.completion"')
    assert difference.claimed is not None
    assert len(difference.claimed) == 100
    named = compare({**CHAT, "a.b\n" * 1000: 1}, CHAT).first["unknown"]
    assert len(named.path) < 160
    assert named.path.isprintable()


def test_a_thousand_fields_do_not_fill_a_report() -> None:
    many = {f"field{i}": i for i in range(1000)}
    found = compare(many, many)
    assert (found.leaves, len(found.rehearsed)) == (1000, 100)


def test_of_a_partial_object_nothing_is_missing() -> None:
    """What it says is held against the other as ever."""
    kept = {"choices": [{"index": 0, "token_ids": [1, 2]}]}
    whole = {"choices": [{"index": 0, "token_ids": [1, 2], "finish_reason": "stop"}], "usage": {"total_tokens": 3}}
    assert compare(kept, whole).first.keys() == {"missing"}
    assert compare(kept, whole, partial=True).same
    for wrong in ({"token_ids": [1, 3]}, {"token_ids": [1]}, {"finish_reason": "length"}):
        claimed = {"choices": [{**kept["choices"][0], **wrong}]}
        assert compare(claimed, whole, partial=True).first.keys() == {"differs"}
    assert compare({**kept, "extra": 1}, whole, partial=True).first.keys() == {"unknown"}
