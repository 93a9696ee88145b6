"""Whatever is handed in as evidence is evidence or MalformedEvidence, which names the field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toploc.errors import MalformedEvidence
from toploc.evidence import parse as module
from toploc.evidence.parse import parse_evidence, read_evidence
from toploc.evidence.strict_json import MAX_BYTES

RECORDED = Path(__file__).parents[1] / "evidence"
MALFORMED = Path(__file__).parents[1] / "malformed_evidence"


def recorded(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_recorded(path: Path) -> None:
    if path.stem == "no-proofs":
        with pytest.raises(MalformedEvidence, match=r"response\.toploc_proofs: missing"):
            parse_evidence(path.read_bytes())
        return
    parsed = parse_evidence(path.read_bytes())
    assert parsed.model == "toploc-mini"
    assert (parsed.proofs.error is None) == bool(parsed.answers)
    assert [answer.index for answer in parsed.answers] == list(range(len(parsed.answers)))


def test_prompts_of_many() -> None:
    parsed = parse_evidence((RECORDED / "completion-many.json").read_bytes())
    assert [parsed.prompt_of(answer) for answer in parsed.answers] == ["one, two", "one, two", "January", "January"]


def test_conversations_of_a_batch() -> None:
    value = recorded("chat-batch")
    parsed = read_evidence(value)
    assert (parsed.route, len(parsed.answers)) == ("batch", 3)
    assert [parsed.messages_of(answer) for answer in parsed.answers] == value["request"]["messages"]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([[{"role": "user"}], []], r"request\.messages\[1\]: expected a list of messages"),
        ([{"role": "user"}, [{"role": "user"}]], r"request\.messages\[0\]: expected a list of messages"),
        ([[{"role": "user"}], ["x"]], r"request\.messages\[1\]: expected objects"),
        ([[{"role": "user"}]] * 2, r"response\.choices: expected 2, as the request asks for, got 3"),
        ([[{}]] * 1025, r"request\.messages: more than 1024"),
    ],
)
def test_batches_that_are_none(messages: Any, problem: str) -> None:
    value = recorded("chat-batch")
    value["request"]["messages"] = messages
    with pytest.raises(MalformedEvidence, match=problem):
        read_evidence(value)


def test_ids_as_prompt() -> None:
    parsed = parse_evidence((RECORDED / "completion-ids.json").read_bytes())
    assert parsed.prompt_of(parsed.answers[0]) == tuple(range(300, 340))


def test_sampling_and_the_models_defaults() -> None:
    plain = recorded("sampled-defaults")
    assert read_evidence(plain).sampling.temperature == 1
    assert read_evidence(plain, {"temperature": 0.6}).sampling.temperature == 0.6
    given = read_evidence(recorded("greedy-penalties"), {"temperature": 0.6}).sampling
    assert given.greedy
    assert given.logit_bias == {400: 3.0, 5: -100.0}
    assert read_evidence(recorded("structured")).sampling.other == ("structured_outputs",)


@pytest.mark.parametrize(
    ("option", "value", "replayed"),
    [
        ("tool_choice", "auto", True),
        ("tool_choice", "required", False),
        ("response_format", {"type": "text"}, True),
        ("response_format", {"type": "json_object"}, False),
        ("bad_words", [], True),
        ("bad_words", ["x"], False),
        ("an_option_of_tomorrow", 1, True),
        ("prompt_cache_key", "user-7", True),
        ("logprobs", True, True),
        ("vllm_xargs", {"a": 1}, False),
    ],
)
def test_options_that_cannot_be_replayed_are_known(option: str, value: Any, replayed: bool) -> None:
    evidence = recorded("greedy")
    evidence["request"][option] = value
    assert (read_evidence(evidence).sampling.other == ()) == replayed


def at(path: str, value: Any, base: str = "two-choices") -> dict[str, Any]:
    """Recorded evidence with one field replaced, or left out where `value` is `...`."""
    changed = recorded(base)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = changed
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


REJECTED: dict[str, tuple[Any, str]] = {
    "list": ([], ""),
    "no-request": (at("request", ...), "request"),
    "no-response": (at("response", ...), "response"),
    "request-text": (at("request", "hello"), "request"),
    "other-key": ({**recorded("greedy"), "extra": 1}, "extra"),
    "responses-route": (at("request", {"input": "hello"}), "response.object"),
    "no-route": (at("request", {"text": "hello"}), "request"),
    "messages-and-prompt": (at("request.prompt", "a"), "request"),
    "no-messages": (at("request.messages", []), "request.messages"),
    "messages-text": (at("request.messages", "hello"), "request.messages"),
    "message-number": (at("request.messages.0", 7), "request.messages[0]"),
    "n-zero": (at("request.n", 0), "request.n"),
    "n-huge": (at("request.n", 10**9), "request.n"),
    "fewer-choices-than-asked": (at("request.n", 3), "response.choices"),
    "temperature-text": (at("request.temperature", "hot"), "request.temperature"),
    "temperature-negative": (at("request.temperature", -1), "request.temperature"),
    "top-p-zero": (at("request.top_p", 0), "request.top_p"),
    "logit-bias-list": (at("request.logit_bias", [1]), "request.logit_bias"),
    "logit-bias-key": (at("request.logit_bias", {"-1": 1}), "request.logit_bias"),
    "logit-bias-key-huge": (at("request.logit_bias", {"4294967296": 1}), "request.logit_bias"),
    "stop-number": (at("request.stop", 3), "request.stop"),
    "chat-as-completion": (at("response.object", "text_completion"), "response.object"),
    "object-unknown": (at("response.object", "response"), "response.object"),
    "choices-object": (at("response.choices", {}), "response.choices"),
    "choice-number": (at("response.choices.0", 1), "response.choices[0]"),
    "choice-index-twice": (at("response.choices.1.index", 0), "response.choices"),
    "choice-index-negative": (at("response.choices.1.index", -1), "response.choices[1].index"),
    "choice-without-message": (at("response.choices.1.message", ...), "response.choices[1].message"),
    "choice-without-text": (at("response.choices.0.text", ..., "completion"), "response.choices[0].text"),
    "no-proofs": (at("response.toploc_proofs", ...), "response.toploc_proofs"),
    "proofs-null": (at("response.toploc_proofs", None), "response.toploc_proofs"),
    "version": (at("response.toploc_proofs.version", 2), "response.toploc_proofs.version"),
    "scheme": (at("response.toploc_proofs.scheme", "md5"), "response.toploc_proofs.scheme"),
    "chunk-size": (at("response.toploc_proofs.chunk_size", 1), "response.toploc_proofs.chunk_size"),
    "digest": (at("response.toploc_proofs.prompt.sha256", "abc"), "response.toploc_proofs.prompt.sha256"),
    "prompt-of-a-billion": (at("response.toploc_proofs.prompt.num_tokens", 10**9), "response.toploc_proofs.choices"),
    "proven-choice-missing": (at("response.toploc_proofs.choices.1", ...), "response.toploc_proofs.choices"),
    "proven-choice-twice": (at("response.toploc_proofs.choices.1.index", 0), "response.toploc_proofs.choices"),
    "no-tokens": (at("response.toploc_proofs.choices.0.token_ids", []), "response.toploc_proofs.choices[0].token_ids"),
    "token-negative": (
        at("response.toploc_proofs.choices.0.token_ids.3", -1),
        "response.toploc_proofs.choices[0].token_ids[3]",
    ),
    "token-above-uint32": (
        at("response.toploc_proofs.choices.0.token_ids.3", 2**32),
        "response.toploc_proofs.choices[0].token_ids[3]",
    ),
    "token-text": (
        at("response.toploc_proofs.choices.0.token_ids.3", "5"),
        "response.toploc_proofs.choices[0].token_ids[3]",
    ),
    "token-fraction": (
        at("response.toploc_proofs.choices.0.token_ids.3", 5.5),
        "response.toploc_proofs.choices[0].token_ids[3]",
    ),
    "proof-number": (
        at("response.toploc_proofs.choices.0.proofs.0", 5),
        "response.toploc_proofs.choices[0].proofs[0]",
    ),
    "prompt-empty": (at("request.prompt", "", "completion"), "request.prompt"),
    "prompts-empty": (at("request.prompt", [], "completion"), "request.prompt"),
    "prompt-of-empty-prompt": (at("request.prompt", [[]], "completion"), "request.prompt"),
    "prompt-mixed": (at("request.prompt", [1, "a"], "completion"), "request.prompt"),
    "prompt-negative": (at("request.prompt", [-1], "completion"), "request.prompt"),
    "suffix": (at("request.suffix", "x", "completion"), "request.suffix"),
    "half-a-surrogate": (at("request.messages.0.content", "\ud800"), "request.messages[0].content"),
    "half-a-surrogate-in-a-name": (at("request.messages.0", {"\ud800": 1}), "request.messages[0]"),
    "half-a-surrogate-alone": ("\ud800", ""),
    "deep": (at("request.metadata", json.loads("[" * 99 + "]" * 99)), "request.metadata[0][0]"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_shapes(name: str) -> None:
    value, field = REJECTED[name]
    with pytest.raises(MalformedEvidence) as raised:
        parse_evidence(json.dumps(value))
    assert raised.value.field.startswith(field), raised.value
    assert bool(raised.value.field) == bool(field), raised.value
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("path", sorted(MALFORMED.iterdir()), ids=lambda path: path.name)
def test_malformed_bytes(path: Path) -> None:
    with pytest.raises(MalformedEvidence) as raised:
        parse_evidence(path.read_bytes())
    assert len(str(raised.value)) < 400


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MalformedEvidence, match="bytes"):
        parse_evidence(b" " * (MAX_BYTES + 1))
    monkeypatch.setattr(module, "MAX_TOKENS", 100)
    with pytest.raises(MalformedEvidence, match="more than 100 tokens"):
        read_evidence(recorded("two-choices"))


CALL = {"type": "mcp_call", "id": "mcp_1", "name": "python", "arguments": "{}", "output": "42"}


def turns(*output: dict[str, Any], choices: int = 1) -> dict[str, Any]:
    """Evidence of a response with this output, as many of whose turns have proofs."""
    field = recorded("greedy-short")["response"]["toploc_proofs"]
    proven = [{**field["choices"][0], "index": index} for index in range(choices)]
    sent = {"object": "response", "model": "toploc-mini", "status": "completed", "output": [*output]}
    request = {"input": "What is 17 + 25?"}
    return {"request": request, "response": {**sent, "toploc_proofs": {**field, "choices": proven}}}


def test_turns_of_a_response() -> None:
    text = {"type": "message", "content": [{"type": "output_text", "text": "42."}]}
    parsed = read_evidence(turns(CALL, text, CALL, text, choices=3))
    assert [(a.text, a.finish_reason, a.restructured) for a in parsed.answers] == [
        ("", "tool_calls", "tool_calls"),
        ("42.", "tool_calls", "tool_calls"),
        ("42.", "stop", None),
    ]
    assert parsed.tool_outputs == ("42", "42")
    assert not parsed.renderable
    silent = read_evidence(turns({"type": "reasoning"}, {**text, "content": []}, text, choices=2))
    assert [(a.text, a.restructured) for a in silent.answers] == [("", "tool_calls"), ("42.", "reasoning")]
    assert silent.tool_outputs == ()
    unavailable = read_evidence(turns({**CALL, "output": None}))
    assert [(a.text, a.restructured) for a in unavailable.answers] == [("", "tool_calls")]
    with pytest.raises(MalformedEvidence, match="1 choices with proofs, 2 in the response"):
        read_evidence(turns(CALL, text))
    with pytest.raises(MalformedEvidence, match=r"response\.output: more than 32 turns"):
        read_evidence(turns(*[CALL] * 100_000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
BASES = [
    recorded(name)
    for name in ("two-choices", "chat-batch", "completion-many", "tool-call", "no-output", "greedy-penalties")
]
BASES.append(turns(CALL, CALL, choices=3))


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every place in a JSON value, but long lists by their first items only."""
    places = [prefix] if prefix else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        places += paths(item, (*prefix, key))
    return places


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    value = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        places = paths(value)
        if not places:
            break
        *parents, last = draw(st.sampled_from(places))
        place = value
        for part in parents:
            place = place[part]
        place[last] = draw(JSON)
    return value


def only_malformed(value: Any) -> None:
    for call in (lambda: read_evidence(value), lambda: parse_evidence(json.dumps(value))):
        try:
            parsed = call()
        except MalformedEvidence:
            continue
        for answer in parsed.answers:
            assert answer.token_ids
            if parsed.chat is None:
                assert parsed.prompt_of(answer)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_mutated_evidence(value: Any) -> None:
    only_malformed(value)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json(value: Any) -> None:
    only_malformed(value)


@settings(max_examples=200, deadline=None)
@given(st.binary() | st.text())
def test_any_bytes(data: bytes | str) -> None:
    with pytest.raises(MalformedEvidence):
        parse_evidence(data)


def test_what_was_kept_of_a_response() -> None:
    item = recorded("greedy")
    assert not read_evidence(item).partial
    assert read_evidence({**item, "partial": True}).partial
    for value in (1, "true", None):
        with pytest.raises(MalformedEvidence, match="partial: expected true or false"):
            read_evidence({**item, "partial": value})
