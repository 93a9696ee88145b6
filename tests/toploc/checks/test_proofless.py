"""Answers that are held to their text alone: recorded ones of the bundled model, and what may be done to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from toploc.report import Report
from toploc.verifier.prefill import TransformersPrefill

if TYPE_CHECKING:
    from conftest import Verify


Recorded = "Callable[[str], dict[str, Any]]"
TEXT_ALONE = ["greedy", "greedy-short", "content-parts", "completion", "chat-batch", "no-proofs", "sampled-defaults"]


@pytest.fixture
def plain(recorded: Recorded) -> Recorded:
    """As a provider without proofs gives it, and as it is handed in."""

    def made(name: str) -> dict[str, Any]:
        evidence = recorded(name)
        evidence["response"].pop("toploc_proofs", None)
        return {**evidence, "proofs": "none"}

    return made


@pytest.mark.parametrize("name", TEXT_ALONE)
def test_nothing_is_found_of_an_honest_answer_and_nothing_is_accepted(
    verify: Verify, plain: Recorded, find: Any, name: str
) -> None:
    report = verify(plain(name))
    assert report.verdict == "undecided"
    assert report.weak, report
    assert find(report, "tokens").status == "weak"
    assert find(report, "proofs").reason == find(report, "model").reason == "unproven"
    assert str(report).startswith("UNDECIDED (nothing found; it proves nothing)  toploc-mini")


def test_proofs_are_as_if_they_were_not_there(verify: Verify, recorded: Recorded, plain: Recorded) -> None:
    """Nothing in the field can help or hurt, whatever it is."""
    for field in (recorded("greedy")["response"]["toploc_proofs"], {"junk": 1}, None):
        evidence = plain("greedy")
        evidence["response"]["toploc_proofs"] = field
        assert verify(evidence) == verify(plain("greedy"))


def test_text_that_the_model_does_not_say(verify: Verify, plain: Recorded, find: Any) -> None:
    report = verify(plain("finetuned-greedy"))
    assert report.verdict == "rejected"
    assert not report.weak
    check = find(report, "tokens")
    assert (check.status, check.reason, check.figures["source"]) == ("failed", "margin", "text")


def test_another_word_in_the_text(verify: Verify, plain: Recorded, find: Any, prefill: TransformersPrefill) -> None:
    evidence = plain("greedy")
    message = evidence["response"]["choices"][0]["message"]
    words = message["content"].split(" ")
    words[len(words) // 2] = "cat"
    message["content"] = " ".join(words)
    counted = len(prefill.encode(message["content"]))
    evidence["response"]["usage"]["completion_tokens"] = counted
    # What the model prefers there may be a space of its own, which the text goes on with too.
    assert find(verify(evidence), "tokens").reason in ("margin", "retokenised")


def test_surprising_text_accuses_nobody_where_it_may_be_spelled_otherwise(
    verify: Verify, plain: Recorded, find: Any, prefill: TransformersPrefill
) -> None:
    """Of sampled text only the lack of surprise counts, alone and pooled; its ids are held to both."""
    evidence = plain("finetuned-sampled")
    choice = evidence["response"]["choices"][0]
    text = choice["message"]["content"]
    ids = prefill.encode(text)
    choice["finish_reason"] = "length"
    evidence["request"]["max_tokens"] = evidence["response"]["usage"]["completion_tokens"] = len(ids)
    report = verify(evidence)
    assert report.verdict == "undecided"
    check = find(report, "tokens")
    assert (check.status, check.reason) == ("undecided", "retokenised")
    assert all(float(power) < 0 for power in check.figures["log_ratios"])
    choice["token_ids"] = ids
    check = find(verify(evidence), "tokens")
    assert check.status == "failed"
    assert any(float(power) > 0 for power in check.figures["log_ratios"])


def test_an_answer_that_breaks_off_and_says_it_stopped(
    verify: Verify, plain: Recorded, find: Any, prefill: TransformersPrefill
) -> None:
    """The end is a token that the model would not have said there."""
    evidence = plain("greedy")
    choice = evidence["response"]["choices"][0]
    choice["message"]["content"] = choice["message"]["content"][:20]
    choice["finish_reason"] = "stop"
    evidence["response"]["usage"]["completion_tokens"] = len(prefill.encode(choice["message"]["content"])) + 1
    assert find(verify(evidence), "tokens").reason == "margin"


@pytest.mark.parametrize("count", [None, 3, -1, True, "12", 12.5, 2**70])
def test_a_count_that_is_not_that_of_the_tokens_accuses_nobody(
    verify: Verify, plain: Recorded, find: Any, count: Any
) -> None:
    evidence = plain("finetuned-greedy")
    evidence["response"]["usage"]["completion_tokens"] = count
    report = verify(evidence)
    assert report.verdict == "undecided"
    assert not report.weak
    expected = "count_differs" if count == 3 else "count_unknown"
    assert find(report, "tokens").reason == expected


def test_without_usage(verify: Verify, plain: Recorded, find: Any) -> None:
    evidence = plain("greedy")
    del evidence["response"]["usage"]
    assert find(verify(evidence), "tokens").reason == "count_unknown"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("stop-string", "stops"), ("stop-token", "stops"), ("tool-call", "restructured"), ("sampled", "count_differs")],
)
def test_what_a_text_does_not_tell(verify: Verify, plain: Recorded, find: Any, name: str, reason: str) -> None:
    report = verify(plain(name))
    assert (report.verdict, report.weak) == ("undecided", False)
    assert find(report, "tokens").reason == reason


def test_another_prompt_accuses_nobody(verify: Verify, plain: Recorded, find: Any) -> None:
    report = verify(plain("other-system"))
    assert (report.verdict, report.weak) == ("undecided", False)
    assert find(report, "prompt").reason == "prompt_length"
    assert [check.name for check in report.checks if check.name == "tokens"] == []


def test_ids_that_the_response_says(verify: Verify, recorded: Recorded, plain: Recorded, find: Any) -> None:
    """They need no count, and have to say the text."""
    ids = recorded("sampled")["response"]["toploc_proofs"]["choices"][0]["token_ids"]
    evidence = plain("sampled")
    del evidence["response"]["usage"]
    evidence["response"]["choices"][0]["token_ids"] = ids
    report = verify(evidence)
    assert report.weak, report
    assert find(report, "tokens").figures["source"] == "ids"
    assert find(report, "text").status == "passed"
    evidence["response"]["choices"][0]["token_ids"] = ids[1:]
    assert find(verify(evidence), "text").reason == "text_differs"
    for junk in ([], [-1], ["5"], {"a": 1}, [True], [2**40]):
        evidence["response"]["choices"][0]["token_ids"] = junk
        assert find(verify(evidence), "tokens").reason == "token_ids"
    evidence["response"]["choices"][0]["token_ids"] = [2**20]
    assert verify(evidence).verdict == "undecided"


def listed(prefill: TransformersPrefill, ids: list[int], values: list[float]) -> dict[str, Any]:
    """As a chat's choice reports them."""
    tokens = [prefill.decode([token], False) for token in ids]
    return {"content": [{"token": t, "logprob": v} for t, v in zip(tokens, values, strict=True)]}


@pytest.mark.parametrize("name", ["greedy", "sampled"])
def test_log_probabilities_are_held_against_the_verifiers(
    verify: Verify, recorded: Recorded, plain: Recorded, find: Any, prefill: TransformersPrefill, name: str
) -> None:
    full = recorded(name)
    ids = full["response"]["toploc_proofs"]["choices"][0]["token_ids"]
    prompt = prefill.render(full["request"]["messages"])
    logits = next(prefill.logits(prefill.states(prompt, ids)))
    rows = [row for part in prefill.logits(prefill.states(prompt, ids)) for row in part.float().log_softmax(-1)]
    own = [float(row[token]) for row, token in zip(rows, ids, strict=True)]
    assert len(own) == len(ids) >= len(logits)
    evidence = plain(name)
    choice = evidence["response"]["choices"][0]
    choice["logprobs"] = listed(prefill, ids, own)
    report = verify(evidence)
    assert report.weak, report
    assert find(report, "tokens").figures["source"] == "logprobs"
    check = find(report, "response")
    assert (check.status, check.reason) == ("weak", "unproven")
    assert check.figures["error"] < 1e-3
    choice["logprobs"] = listed(prefill, ids, [value - 0.6 for value in own])
    report = verify(evidence)
    assert (report.verdict, find(report, "response").reason) == ("rejected", "logprobs_differ")
    choice["logprobs"] = listed(prefill, ids, [-9999.0] * len(own))
    assert find(verify(evidence), "response").status == "weak"  # it says nothing of any


def test_options_that_are_not_known_are_swept(verify: Verify, plain: Recorded, find: Any) -> None:
    """Without a temperature the answer may be greedy, if the auditor says that providers of this model are."""
    evidence = plain("finetuned-greedy")
    del evidence["request"]["temperature"]
    loose = verify({**evidence, "sampling": [{"temperature": 0}, {"temperature": 1}]})
    swept = find(loose, "tokens").figures["swept"]
    assert [one["options"] for one in swept] == [{"temperature": 0}, {"temperature": 1}]
    assert swept[0]["reason"] == "margin"
    assert "margin_ratios" in swept[0]
    assert "log_ratios" in swept[1]
    assert verify({**evidence, "sampling": [{"temperature": 0}]}).verdict == "rejected"


def test_the_model_is_run_once_however_many_options_are_tried(
    verify: Verify, plain: Recorded, find: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, states = [], TransformersPrefill.states

    def counted(self: TransformersPrefill, *arguments: Any) -> Any:
        runs.append(arguments)
        return states(self, *arguments)

    monkeypatch.setattr(TransformersPrefill, "states", counted)
    swept = find(verify(plain("seeded")), "tokens").figures["swept"]
    assert len(swept) > 1
    assert len(runs) == 1


def test_a_seed_is_tried_with_each_sampler(verify: Verify, plain: Recorded, find: Any) -> None:
    report = verify(plain("seeded"))
    assert report.weak, report
    swept = find(report, "tokens").figures["swept"]
    assert [one["options"]["sampler"] for one in swept] == ["splitmix64", "murmur3", "philox", None]
    assert [one["status"] for one in swept] == ["weak", "undecided", "undecided", "weak"]
    assert find(report, "tokens").reason == "unproven"


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"proofs": None}, "proofs"),
        ({"proofs": "given"}, "proofs"),
        ({"sampling": "hot"}, "sampling"),
        ({"sampling": []}, "sampling"),
        ({"sampling": [{}] * 9}, "sampling"),
        ({"sampling": [{"seed": 1}]}, "sampling[0]"),
        ({"sampling": [{"temperature": -1}]}, "sampling[0].temperature"),
    ],
)
def test_malformed_parts_are_named(verify: Verify, plain: Recorded, parts: dict[str, Any], field: str) -> None:
    report = verify({**plain("greedy"), **parts})
    assert report.verdict == "undecided"
    assert field in report.checks[0].message


def test_options_go_with_evidence_without_proofs_alone(verify: Verify, recorded: Recorded) -> None:
    assert verify({**recorded("greedy"), "sampling": [{}]}).checks[0].reason == "malformed"


def test_no_report_of_one_is_ever_accepted(verify: Verify, plain: Recorded) -> None:
    """Even with every check that could be there turned into one that passed: the proofs are not."""
    report = verify(plain("greedy"))
    passed = [c.model_copy(update={"status": "passed"}) if c.name != "proofs" else c for c in report.checks]
    assert Report.of(passed).verdict == "undecided"
