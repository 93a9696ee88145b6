"""Weights that are replaced while answers are made, and memory that goes while the engine sleeps."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rows import ONES, STATES, code_of, make_recorder, proofs_of, record, register
from toploc_proxy.channel.tag import Key

if TYPE_CHECKING:
    from toploc_proxy.capture.recorder import Recorder
    from toploc_proxy.channel.tag import Tag


def row(recorder: Recorder, name: str, *positions: int) -> None:
    for position in positions:
        record(recorder, name, position, ONES[:1], STATES[position : position + 1])


def spans(recorder: Recorder, tag: Tag, count: int) -> list[tuple[int, int, int]]:
    [outcome] = recorder.finalize_all([(Key(tag.nonce, 0), [1] * count)])
    assert outcome.proofs == proofs_of(STATES[:count])
    return outcome.weights


def test_answers_of_the_first_weights_say_nothing_of_them() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(5))
    assert spans(recorder, tag, 5) == []


def test_an_answer_after_a_change_is_of_the_later_weights() -> None:
    recorder = make_recorder()
    for _ in range(3):
        recorder.weights_changed()
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(5))
    assert spans(recorder, tag, 5) == [(3, 0, 5)]


@pytest.mark.parametrize("at", [1, 31, 32, 33])
def test_weights_replaced_in_the_middle(at: int) -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(at))
    recorder.weights_changed()
    row(recorder, "a", *range(at, 40))
    assert spans(recorder, tag, 40) == [(0, 0, at), (1, at, 40)]


def test_weights_under_which_no_step_ran() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", 0, 1)
    recorder.weights_changed()
    recorder.weights_changed()
    row(recorder, "a", 2)
    recorder.weights_changed()
    assert spans(recorder, tag, 3) == [(0, 0, 2), (2, 2, 3)]


def test_a_change_within_the_prompt_is_told() -> None:
    """Its keys and values are of both, though all rows of the answer are of the later."""
    recorder = make_recorder()
    tag = register(recorder, "a", 3)
    record(recorder, "a", 0, ONES[:1], STATES[:1])
    recorder.weights_changed()
    record(recorder, "a", 1, ONES[:2], STATES[:2])
    [outcome] = recorder.finalize_all([(Key(tag.nonce, 0), [1])])
    assert outcome.weights == [(0, 0, 0), (1, 0, 1)]


def test_rows_that_are_computed_again_are_of_the_later_weights() -> None:
    """After a preemption; but for those of a chunk that was reduced."""
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(36))
    recorder.weights_changed()
    row(recorder, "a", 36)
    record(recorder, "a", 0, ONES[:37], STATES[:37])
    row(recorder, "a", 37)
    assert spans(recorder, tag, 38) == [(0, 0, 32), (1, 32, 38)]


def test_drafts_leave_open_which_of_the_last_rows_are_whose() -> None:
    """Positions are upper bounds, so the later weights are said to have made a few rows more."""
    recorder = make_recorder(draft_tokens=2)
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(10))
    recorder.weights_changed()
    row(recorder, "a", *range(10, 20))
    assert spans(recorder, tag, 20) == [(0, 0, 6), (1, 6, 20)]


def test_other_requests_are_not_concerned() -> None:
    recorder = make_recorder(num_slots=3)
    over, running = register(recorder, "a", 1), register(recorder, "b", 1)
    row(recorder, "a", 0)
    row(recorder, "b", 0)
    recorder.finished(["a"])
    recorder.weights_changed()
    later = register(recorder, "c", 1)
    row(recorder, "b", 1)
    row(recorder, "c", 0)
    assert spans(recorder, over, 1) == []
    assert spans(recorder, running, 2) == [(0, 0, 1), (1, 1, 2)]
    assert spans(recorder, later, 1) == [(1, 0, 1)]
    assert recorder._straddling == set()


def test_sleep_waits_for_proofs_that_are_asked_for() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", *range(33))
    asleep = threading.Thread(target=recorder.sleep)
    asleep.start()
    time.sleep(0.1)
    assert spans(recorder, tag, 33) == []
    began = time.monotonic()
    asleep.join()
    assert time.monotonic() - began < 1


def test_sleep_gives_up_what_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toploc_proxy.capture.recorder.DRAIN_SECONDS", 0.05)
    recorder = make_recorder(num_slots=2)
    over, frozen = register(recorder, "a", 1), register(recorder, "b", 1)
    for name in ("a", "b"):
        row(recorder, name, *range(34))
    recorder.finished(["a"])
    recorder.sleep()
    assert recorder.slots_in_use == 0
    recorder.encode()
    # What is in the memory that comes back is anything.
    ring = recorder._ring
    ring._values[:] = np.random.default_rng(1).integers(0, 2**16, ring._values.shape)
    recorder.wake()
    row(recorder, "b", 34)
    for tag in (over, frozen):
        assert code_of(recorder, Key(tag.nonce, 0), [1] * 34) == "asleep"
    after = register(recorder, "c", 1)
    row(recorder, "c", 0, 1)
    assert spans(recorder, after, 2) == []


def test_rows_from_before_sleep_are_never_taken() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    row(recorder, "a", 0)
    recorder.wake()
    assert code_of(recorder, Key(tag.nonce, 0), [1]) == "rows_missing"
