"""The error of a whole answer: off unless the thresholds have bounds for it, and what it adds to the chunks'."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toploc.engine import Facts
from toploc.errors import InvalidThresholds
from toploc.pooling.spread import Alternative, Spread
from toploc.thresholds.bounds import Bounds, Pair, Thresholds
from toploc.thresholds.noise import ChannelNoise
from toploc.thresholds.pooled import Copy, PooledBounds
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check, Report
    from toploc.verifier.prefill import TransformersPrefill

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]

HONEST = Spread(-0.6, 0.1, 0.25)
COPY = Copy(scores=Spread(0.2, 0.1, 0.25), threshold=11.5)
BOUNDS = PooledBounds(honest=HONEST, provenance="a test", bound=4.5, copies={"fp8": COPY})


@pytest.fixture
def judged(prefill: TransformersPrefill, recorded: Recorded) -> Callable[..., Report]:
    def judge(of: str | dict[str, Any], bounds: PooledBounds = BOUNDS) -> Report:
        evidence = recorded(of) if isinstance(of, str) else of
        thresholds = replace(Thresholds.load("toploc-mini"), pooled=bounds)
        verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=thresholds)
        return verifier.verify(json.dumps(evidence))

    return judge


def test_it_is_off_by_default(verify: Verify, recorded: Recorded) -> None:
    assert "pooled" not in {check.name for check in verify(recorded("greedy")).checks}


def test_an_honest_answer(judged: Callable[..., Report], find: Find) -> None:
    report = judged("greedy")
    assert report.accepted
    check, chunks = find(report, "pooled"), find(report, "proofs").figures["chunks"]
    assert isinstance(chunks, list)
    scores = np.log([chunk["mantissa_mean"] for chunk in chunks if chunk["rows"] == 32])
    assert len(scores) == len(chunks) - 1 == 4
    assert check.figures == {
        "chunks": 4,
        "score": pytest.approx(scores.mean()),
        "deviations": pytest.approx((scores.mean() + 0.6) / (0.1**2 + 0.25**2 / 4) ** 0.5),
        "evidence": {"fp8": pytest.approx(Alternative(HONEST, COPY.scores).log_ratio(scores))},
    }
    assert check.thresholds["alarms"] == {"fp8": {"threshold": 11.5, "audits": 1000, "false_alarm": 0.01}}


NOISE = ChannelNoise(hidden_size=256, usual=0.14, channels={5: 0.18, 214: 0.22})
BY_CHANNEL = BOUNDS.model_copy(update={"honest": Spread(0.44, 0.02, 0.05), "noise": NOISE})


def test_by_channel(judged: Callable[..., Report], find: Find) -> None:
    """Where the noise of each channel is known, the score is of that."""
    for name, verdict in (("greedy", "accepted"), ("int4-greedy", "rejected")):
        report = judged(name, BY_CHANNEL)
        assert report.verdict == verdict
        check, chunks = find(report, "pooled"), find(report, "proofs").figures["chunks"]
        assert isinstance(chunks, list)
        errors = [chunk["channel_error"] for chunk in chunks if chunk["rows"] == 32]
        assert check.figures["score"] == pytest.approx(np.mean(errors))
        assert check.reason == (None if verdict == "accepted" else "pooled_error")
        assert "the error by channel is" in check.message
    # Nothing is said of it elsewhere.
    assert "channel_error" not in json.dumps(find(judged("greedy"), "proofs").figures)


def test_states_of_another_size_have_other_channels(judged: Callable[..., Report]) -> None:
    with pytest.raises(InvalidThresholds, match=r"hidden_size.* for 128 channels, this model's states have 256"):
        judged("greedy", BY_CHANNEL.model_copy(update={"noise": ChannelNoise(hidden_size=128, usual=0.14)}))


def test_an_answer_whose_every_chunk_passes(judged: Callable[..., Report], find: Find) -> None:
    narrow = BOUNDS.model_copy(update={"honest": Spread(-1.5, 0.1, 0.1)})
    report = judged("greedy", narrow)
    assert report.verdict == "rejected"
    assert find(report, "proofs").status == "passed"
    assert (find(report, "pooled").status, find(report, "pooled").reason) == ("failed", "pooled_error")
    assert "whole chunks" in find(report, "pooled").message


def test_more_precision_than_the_model_has_is_not_refused(judged: Callable[..., Report], find: Find) -> None:
    assert (
        find(judged("greedy", BOUNDS.model_copy(update={"honest": Spread(2.0, 0.1, 0.1)})), "pooled").status == "passed"
    )


def test_each_choice_has_one(judged: Callable[..., Report], find: Find) -> None:
    report = judged("two-choices")
    assert [find(report, "pooled", choice).status for choice in (0, 1)] == ["passed", "passed"]


def test_nothing_to_pool(judged: Callable[..., Report], find: Find) -> None:
    report = judged("greedy-short")
    assert report.accepted
    assert (find(report, "pooled").status, find(report, "pooled").reason) == ("skipped", "no_whole_chunk")


def test_malformed_proofs(judged: Callable[..., Report], find: Find, recorded: Recorded) -> None:
    evidence = recorded("greedy")
    evidence["response"]["toploc_proofs"]["choices"][0]["proofs"].pop()
    report = judged(evidence)
    assert report.verdict == "rejected"
    assert (find(report, "pooled").status, find(report, "pooled").reason) == ("skipped", "not_compared")


def test_without_a_bound_it_only_says_what_audits_sum_up(judged: Callable[..., Report], find: Find) -> None:
    report = judged("int4-greedy", BOUNDS.model_copy(update={"bound": None}))
    check = find(report, "pooled")
    assert (check.status, check.reason) == ("skipped", "no_bound")
    evidence = check.figures["evidence"]
    assert isinstance(evidence, dict)
    assert isinstance(evidence["fp8"], float)
    assert evidence["fp8"] > 3


EAGER = Facts(name="vllm", execution="eager")


def by(evidence: dict[str, Any], **engine: str) -> dict[str, Any]:
    """As if the prover said that of its engine."""
    evidence["response"]["toploc_proofs"]["engine"] = {"name": "vllm", "version": "0.32.0", **engine}
    return evidence


@pytest.mark.parametrize("name", ["greedy", "int4-greedy"])
def test_a_prover_of_another_mode_is_not_compared(
    judged: Callable[..., Report], find: Find, recorded: Recorded, name: str
) -> None:
    """It is not accused, and its word gets nothing accepted: all else is checked as ever."""
    narrow = BOUNDS.model_copy(update={"honest": Spread(-1.5, 0.1, 0.1), "engine": EAGER})
    report = judged(by(recorded(name), execution="FULL_AND_PIECEWISE"), narrow)
    check = find(report, "pooled")
    assert (check.status, check.reason, check.figures) == ("undecided", "not_comparable", {})
    assert "FULL_AND_PIECEWISE" in check.message
    assert report.verdict == ("undecided" if name == "greedy" else "rejected")
    # Where answers are not to be refused by it, the word is no way around the sum over answers either.
    report = judged(by(recorded(name), execution="FULL_AND_PIECEWISE"), narrow.model_copy(update={"bound": None}))
    assert (find(report, "pooled").reason, report.accepted) == ("not_comparable", False)


@pytest.mark.parametrize("engine", [{"execution": "eager"}, {"execution": "eager", "device": "cpu"}])
def test_a_prover_of_the_calibrated_mode_is(
    judged: Callable[..., Report], find: Find, recorded: Recorded, engine: dict[str, str]
) -> None:
    bounds = BOUNDS.model_copy(update={"engine": EAGER})
    assert judged(by(recorded("greedy"), **engine), bounds).accepted
    narrow = bounds.model_copy(update={"honest": Spread(-1.5, 0.1, 0.1)})
    assert find(judged(by(recorded("greedy"), **engine), narrow), "pooled").reason == "pooled_error"


def test_one_that_says_nothing_is_held_against_the_bounds(
    judged: Callable[..., Report], find: Find, recorded: Recorded
) -> None:
    evidence = recorded("greedy")
    evidence["response"]["toploc_proofs"].pop("engine", None)
    narrow = BOUNDS.model_copy(update={"honest": Spread(-1.5, 0.1, 0.1), "engine": EAGER})
    assert find(judged(evidence, narrow), "pooled").reason == "pooled_error"


def test_a_provers_word_tightens_bounds_and_loosens_none(
    prefill: TransformersPrefill, find: Find, recorded: Recorded
) -> None:
    own = Thresholds.load("toploc-mini")
    pair = Pair(EAGER, Facts(name="transformers"), (Bounds(1, 0, 0.0, 0.0),), "a test")
    loose = Pair(EAGER, Facts(), (Bounds(1, 128, 1e9, 1e9),), "a test")
    told = {}
    for pairs in ((pair,), (loose,)):
        verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=replace(own, pairs=pairs))
        for name in ("greedy", "int4-greedy"):
            for execution in ("eager", "FULL"):
                report = verifier.verify(json.dumps(by(recorded(name), execution=execution)))
                told[pairs[0] is pair, name, execution] = report.verdict
                assert report.engines is not None
                assert report.engines.verifier == prefill.engine
                assert f"vllm 0.32.0, {execution}, by its own word" in str(report)
    assert told == {
        (True, "greedy", "eager"): "rejected",
        (True, "greedy", "FULL"): "accepted",
        (True, "int4-greedy", "eager"): "rejected",
        (True, "int4-greedy", "FULL"): "rejected",
        (False, "greedy", "eager"): "accepted",
        (False, "greedy", "FULL"): "accepted",
        (False, "int4-greedy", "eager"): "rejected",
        (False, "int4-greedy", "FULL"): "rejected",
    }
