"""Checks in the background: bounded, and nothing is lost."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from toploc_client import Options
from toploc_client.background import THREADS, Background
from toploc_client.exchange import Exchange

from toploc.errors import ToplocError


def exchange(number: int) -> Exchange:
    return Exchange(b"{}", b"%d" % number)


class Recorder:
    """Checks wait until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.checked: list[int] = []
        self.spooled: list[int] = []

    def check(self, exchange: Exchange, _: Any) -> None:
        self.go.wait()
        self.checked.append(int(exchange.response))

    def spool(self, exchange: Exchange) -> None:
        self.spooled.append(int(exchange.response))


def test_everything_is_checked_or_spooled_at_once() -> None:
    recorder = Recorder()
    background = Background(recorder.check, recorder.spool, 10)
    for number in range(100):
        background.submit(exchange(number), None)
    assert 100 - 10 - THREADS <= len(recorder.spooled) <= 90
    assert not background.flush(0.01)
    recorder.go.set()
    assert background.flush(30)
    background.close()
    assert sorted(recorder.checked + recorder.spooled) == list(range(100))
    background.submit(exchange(100), None)
    assert recorder.spooled[-1] == 100


def test_what_is_left_at_the_end_is_spooled() -> None:
    recorder = Recorder()
    background = Background(recorder.check, recorder.spool, 50)
    for number in range(20):
        background.submit(exchange(number), None)
    background.close(timeout=0.05)
    assert sorted(recorder.spooled) == list(range(20))
    recorder.go.set()


def test_a_forked_child_checks_its_own() -> None:
    recorder = Recorder()
    recorder.go.set()
    background = Background(recorder.check, recorder.spool, 50)
    background.submit(exchange(1), None)
    assert background.flush(30)
    child = os.fork()
    if child == 0:
        try:
            background.submit(exchange(2), None)
            done = background.flush(30) and recorder.checked == [1, 2]
        finally:
            os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert recorder.checked == [1]
    background.close()


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "most"},
        {"when": "later"},
        {"audit_rate": 1.1},
        {"audit_rate": float("nan")},
        {"audit_rate": "1"},
        {"on_reject": "ignore"},
        {"when": "background", "on_reject": "raise"},
        {"queue_size": 0},
    ],
)
def test_options_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ToplocError, match=list(options)[-1]):
        Options(**options)
