"""Many answers at once, in a scheduler whose batches change with every step: each chunk of each is right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from many_answers import bodies

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api

ANSWERS = 60


def test_sixty_answers(api: Api, verified: Callable[..., Any]) -> None:
    asked = bodies(ANSWERS)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: api.post("/v1/chat/completions", **body), asked))
    for body, answer in zip(asked, answers, strict=True):
        verified(answer["toploc_proofs"], body["messages"])
    assert api.metric("toploc:slots_in_use") <= 1


def test_answers_that_nobody_waits_for_leave_nothing(api: Api) -> None:
    """A client that goes in the middle: its request is aborted, and its capture goes with it."""
    body = {"model": "toploc-mini", "messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}
    with api.http.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 1500, "ignore_eos": True}) as gone:
        next(gone.iter_lines())
    for _ in range(100):
        if api.metric("toploc:slots_in_use") == 0:
            return
        api.post("/v1/completions", prompt="The", max_tokens=4)
    raise AssertionError("a capture was left behind")
