"""A response that says more or other than its tokens is not accepted by a verifier without an engine either."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from toploc.checks.response import Ended, Rehearsed, check_response
from toploc.evidence.leaves import compare
from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.receipts.request import digest
from toploc.receipts.statement import issue
from toploc.thresholds.bounds import Thresholds
from toploc.thresholds.tokens import TokenBounds
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check
    from toploc.verifier.prefill import TransformersPrefill

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]

OTHER = "Book the flight, whatever it costs."


def message(evidence: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = evidence["response"]["choices"][0]["message"]
    return found


def cut(evidence: dict[str, Any], chunks: int) -> None:
    """The first chunks of an answer, with their proofs and text."""
    proven = evidence["response"]["toploc_proofs"]["choices"][0]
    proven.update(token_ids=proven["token_ids"][: 32 * chunks], proofs=proven["proofs"][:chunks])
    evidence["response"]["usage"].update(completion_tokens=32 * chunks, total_tokens=35 + 32 * chunks)


def echoed(evidence: dict[str, Any]) -> None:
    evidence["request"]["echo"] = True
    message(evidence)["content"] = OTHER


def also_a_message(evidence: dict[str, Any]) -> None:
    """What a reader of messages is shown is honest; what one of chats is shown is not."""
    evidence["request"]["max_tokens"] = 400
    blocks = [{"type": "text", "text": message(evidence)["content"]}]
    evidence["response"] |= {"type": "message", "content": blocks, "stop_reason": "end_turn"}
    message(evidence)["content"] = OTHER


def a_message_beside_the_text(evidence: dict[str, Any]) -> None:
    [choice] = evidence["response"]["choices"]
    choice["message"] = {"role": "assistant", "content": choice["text"]}
    choice["text"] = OTHER


def cut_for_its_content(evidence: dict[str, Any]) -> None:
    cut(evidence, 1)
    evidence["response"]["choices"][0]["finish_reason"] = "content_filter"
    message(evidence)["content"] = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1"  # of 32 tokens


def past_a_stop_string(evidence: dict[str, Any]) -> None:
    evidence["request"]["stop"] = [" 11,"]


def said_to_end_with_a_call(evidence: dict[str, Any]) -> None:
    evidence["response"]["choices"][0]["finish_reason"] = "tool_calls"


def other_token_ids(evidence: dict[str, Any]) -> None:
    evidence["request"]["return_token_ids"] = True
    evidence["response"]["prompt_token_ids"] = [1]
    evidence["response"]["choices"][0]["token_ids"] = [1, 2]


def usage_times_a_thousand(evidence: dict[str, Any]) -> None:
    evidence["response"]["usage"] = {name: 1000 * (n or 0) for name, n in evidence["response"]["usage"].items()}


def a_search_before_part_of_the_text(evidence: dict[str, Any]) -> None:
    text = message(evidence)["content"]
    evidence["request"] = {"model": "toploc-mini", "input": "Count from 1 to 40.", "temperature": 0}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text[-3:]}]}
    evidence["response"] = {
        "object": "response",
        "model": "toploc-mini",
        "status": "completed",
        "output": [{"type": "web_search_call", "action": {"type": "search", "query": "numbers"}}, said],
        "toploc_proofs": evidence["response"]["toploc_proofs"],
    }


def a_content_of_one_character(evidence: dict[str, Any]) -> None:
    message(evidence).update(content="1", reasoning="The user wants to hear of one.")


def other_arguments(evidence: dict[str, Any]) -> None:
    message(evidence)["tool_calls"][0]["function"]["arguments"] = '{"a": 1, "b": 1}'


def invented_logprobs(evidence: dict[str, Any]) -> None:
    place = {"token": "1", "logprob": -0.1, "bytes": [49], "top_logprobs": []}
    evidence["response"]["choices"][0]["logprobs"] = {"content": [place]}


def a_refusal_and_annotations(evidence: dict[str, Any]) -> None:
    citation = {"type": "url_citation", "url_citation": {"url": "https://example.org", "title": OTHER}}
    message(evidence).update(refusal="I will not.", annotations=[citation])


def an_unknown_field(evidence: dict[str, Any]) -> None:
    evidence["response"]["search_results"] = [{"title": OTHER}]


def search_results_in_a_message(evidence: dict[str, Any]) -> None:
    text = {"type": "text", "text": message(evidence)["content"], "citations": [{"cited_text": OTHER}]}
    found = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": OTHER}]}
    messages = [{"role": "user", "content": "Count from 1 to 40."}]
    evidence["request"] = {"model": "toploc-mini", "messages": messages, "max_tokens": 400, "temperature": 0}
    evidence["response"] = {
        "type": "message",
        "role": "assistant",
        "model": "toploc-mini",
        "content": [found, text],
        "stop_reason": "end_turn",
        "toploc_proofs": evidence["response"]["toploc_proofs"],
    }


REJECTED: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "echoed": ("greedy", echoed),
    "also a message": ("greedy", also_a_message),
    "a message beside the text": ("completion", a_message_beside_the_text),
    "past a stop string": ("greedy", past_a_stop_string),
    "said to end with a call": ("greedy", said_to_end_with_a_call),
    "other token ids": ("greedy", other_token_ids),
    "usage times a thousand": ("greedy", usage_times_a_thousand),
    "a search before part of the text": ("greedy", a_search_before_part_of_the_text),
}
UNDECIDED: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "cut for its content": ("greedy", cut_for_its_content, "not_bound"),
    "a content of one character": ("greedy", a_content_of_one_character, "not_bound"),
    "other arguments": ("tool-call", other_arguments, "not_bound"),
    "invented logprobs": ("greedy", invented_logprobs, "not_bound"),
    "a refusal and annotations": ("greedy", a_refusal_and_annotations, "unknown_field"),
    "an unknown field": ("greedy", an_unknown_field, "unknown_field"),
    "search results in a message": ("greedy", search_results_in_a_message, "unrehearsed"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_contradicts_the_tokens_is_rejected(verify: Verify, recorded: Recorded, name: str) -> None:
    of, change = REJECTED[name]
    evidence = recorded(of)
    change(evidence)
    report = verify(evidence)
    assert report.verdict == "rejected", str(report)


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_only_an_engine_can_tell_is_not_accepted(
    verify: Verify, recorded: Recorded, find: Find, name: str
) -> None:
    of, change, reason = UNDECIDED[name]
    evidence = recorded(of)
    change(evidence)
    report = verify(evidence)
    assert (report.verdict, find(report, "response").reason) == ("undecided", reason), str(report)


def test_leaves_that_are_free(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("greedy")
    evidence["response"] |= {"id": "another", "created": 1, "system_fingerprint": "other", "service_tier": "flex"}
    report = verify(evidence)
    response = find(report, "response")
    assert report.verdict == "accepted", str(report)
    assert response.figures["free"] == ["id", "created", "model", "service_tier", "system_fingerprint"]
    assert "choices[].message.content" in response.figures["rehearsed"]


def test_an_echo_is_the_last_message(verify: Verify, recorded: Recorded) -> None:
    """Which is the user's here, and so is not repeated."""
    evidence = recorded("greedy")
    evidence["request"]["echo"] = True
    assert verify(evidence).verdict == "accepted"


def test_token_ids_that_were_asked_for(verify: Verify, recorded: Recorded) -> None:
    evidence = recorded("greedy-ids")
    evidence["request"]["return_token_ids"] = True
    proven = evidence["response"]["toploc_proofs"]
    evidence["response"]["prompt_token_ids"] = proven["prompt"]["token_ids"]
    evidence["response"]["choices"][0]["token_ids"] = proven["choices"][0]["token_ids"]
    report = verify(evidence)
    assert report.verdict == "accepted", str(report)


BOUNDS = TokenBounds()


def outcome(rehearsed: Rehearsed) -> tuple[str, str | None]:
    found = check_response(rehearsed, BOUNDS)
    return found.status, found.reason


def test_where_an_answer_ends() -> None:
    assert outcome(Rehearsed(ended=Ended(0, 32, None))) == ("failed", "cut_short")
    assert outcome(Rehearsed(ended=Ended(1, 32, 7))) == ("failed", "past_the_end")


def test_without_a_rehearsal_nothing_is_said() -> None:
    found = check_response(Rehearsed(problem="no such route"), BOUNDS)
    assert (found.status, found.reason, found.message) == (
        "undecided",
        "unrehearsed",
        "there was no rehearsal: no such route",
    )


def test_a_difference_outweighs_an_unknown_field() -> None:
    found = check_response(Rehearsed(compare({"a": 1, "b": 2}, {"b": 3})), BOUNDS)
    assert (found.status, found.reason) == ("failed", "response_differs")
    assert found.message == "b is 2 where the tokens say 3"
    assert (found.figures["path"], found.figures["claimed"], found.figures["expected"]) == ("b", "2", "3")
    assert outcome(Rehearsed(compare({"a": 1, "b": 2}, {"b": 2}))) == ("undecided", "unknown_field")
    assert outcome(Rehearsed(compare({}, {"b": 2}))) == ("undecided", "missing_field")
    assert outcome(Rehearsed(compare({"logprobs": [1]}, {"logprobs": [1]}))) == ("undecided", "not_bound")


def test_noise_of_log_probabilities() -> None:
    def of(*noise: float) -> tuple[str, str | None]:
        comparison = compare({"a": 1}, {"a": 1})
        comparison.noise += noise
        return outcome(Rehearsed(comparison))

    assert of(0.1, 0.2) == ("passed", None)
    assert of(0.1, 1.1) == ("failed", "logprobs_differ")
    # One in a hundred may lie further than the noise, up to the margin.
    assert of(*[0.0] * 200, 0.9, 0.9) == ("passed", None)
    assert of(*[0.3] * 30, *[0.0] * 200) == ("failed", "logprobs_differ")


def test_log_probabilities_have_the_defaults_noise_at_least() -> None:
    """Of unlikely tokens, which no calibration has seen."""
    comparison = compare({}, {})
    comparison.noise += [0.2, 0.2, 0.2]
    fine = TokenBounds(near=0.126, margin=0.4, rate=1e-4)
    assert check_response(Rehearsed(comparison), fine).status == "passed"
    comparison.noise += [1.1]
    assert check_response(Rehearsed(comparison), fine).reason == "logprobs_differ"
    wide = TokenBounds(near=2.0, margin=3.0, rate=0.1)
    assert wide.of_logprobs() == wide


def test_what_is_shown_of_a_difference_is_printable() -> None:
    found = check_response(Rehearsed(compare({"a": "\x1b[2J\u202e"}, {"a": "b"})), BOUNDS)
    assert found.message.isprintable()


def test_a_client_cannot_frame_who_signed_an_answer(prefill: TransformersPrefill, recorded: Recorded) -> None:
    """It puts the text of a signed completion beside, and another in its place: rejected, and not by a receipt."""
    key = SigningKey.of(Ed25519PrivateKey.generate())
    verifier = TransformersVerifier(prefill, thresholds=Thresholds.load("toploc-mini"), trusted_keys=[key.public])
    evidence = recorded("completion")
    response = evidence["response"]
    field = issue(
        key,
        ToplocProofs.model_validate_json(json.dumps(response["toploc_proofs"])),
        response,
        request_sha256=digest(evidence["request"]),
        issued_at=1795492617,
    )
    response["toploc_proofs"] = json.loads(field.to_json())

    def outcome() -> tuple[str, str]:
        report = verifier.verify(json.dumps(evidence))
        return report.verdict, next(check.status for check in report.checks if check.name == "receipt")

    assert outcome() == ("accepted", "passed")
    a_message_beside_the_text(evidence)
    assert outcome() == ("rejected", "failed")
