# Made from client/asynchronous/finishing.py by scripts/synchronous.py: change that one.
"""What is done with an answer that is whole, in the order in which somebody has to be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..answer import Answer
from .waiting import ask, settle

if TYPE_CHECKING:
    from ..checker import Checker
    from ..exchange import Exchange
    from ..judgement import Judgement
    from ..kept import Fetch


def finish(checker: Checker, answer: Answer, fetch: Fetch | None = None) -> None:
    """Does what the options say with an answer that is whole. `fetch` asks its server for proofs that did not come.

    Raises UnacceptedResponse. A function of `on_reject` or `on_undecided` may be a coroutine function.
    """
    if fetch is not None and (name := checker.fetchable(answer)) is not None:
        answer = checker.receive(answer, fetch(name))
    given = checker.begin(answer)
    if given is None:
        return
    if checker.options.when == "inline":
        settle(checker.react(given.exchange, answer.response, ask(checker, given)))
    else:
        checker.submit(given, answer.response)


def judge(checker: Checker, exchange: Exchange, fetch: Fetch) -> Judgement:
    """What the verifiers say of an answer that somebody asks about. Raises ToplocError where there is no verifier."""
    checker.require_verifiers()
    answer = Answer(exchange, None, exchange.proofs)
    if checker.options.fetch_proofs is not False and (name := answer.fetchable) is not None:
        exchange = checker.receive(answer, fetch(name)).exchange or exchange
    return ask(checker, checker.given(exchange))
