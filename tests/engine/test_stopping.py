"""Where an answer ends: the proofs cover exactly the tokens up to there, whatever the engine ran past it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from asking import Api

    from toploc.verifier.prefill import TransformersPrefill

CHAT = "/v1/chat/completions"
STORY = [{"role": "user", "content": "Tell me a story."}]
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
Verified = "Callable[..., ToplocProofs]"


def text_and_field(api: Api, *, stream: bool, **body: Any) -> tuple[str, str, dict[str, Any]]:
    """Content, finish reason and field of one choice, the same from a stream."""
    if not stream:
        response = api.post(CHAT, **body)
        [choice] = response["choices"]
        return choice["message"]["content"], choice["finish_reason"], response["toploc_proofs"]
    events = api.stream(CHAT, **body)
    [last] = [event for event in events if "toploc_proofs" in event]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    return text, last["choices"][0]["finish_reason"], last["toploc_proofs"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_stop_strings(
    api: Api, prefill: TransformersPrefill, verified: Verified, share: float, include: bool, stream: bool
) -> None:
    """The front end finds them in the text, after the fact, in the middle of tokens and of chunks."""
    whole = api.chat(STORY, temperature=0)["choices"][0]["message"]["content"]
    at = int(len(whole) * share)
    stop = whole[at : at + 5]
    at = whole.index(stop)
    text, reason, field = text_and_field(
        api, stream=stream, messages=STORY, temperature=0, stop=[stop], include_stop_str_in_output=include
    )
    assert reason == "stop"
    assert text == whole[: at + len(stop) if include else at]
    [choice] = verified(field, STORY).choices
    assert stop in prefill.tokenizer.decode(choice.token_ids)
    assert stop not in prefill.tokenizer.decode(choice.token_ids[:-1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 50])
def test_stop_token_ids(api: Api, verified: Verified, length: int, stream: bool) -> None:
    messages = [{"role": "user", "content": "Count from 1 to 40."}]
    whole = verified(api.chat(messages, temperature=0, max_tokens=60)["toploc_proofs"], messages).choices[0].token_ids
    # Another token may come earlier that is the same.
    length = whole.index(whole[length - 1]) + 1
    _, reason, field = text_and_field(
        api, stream=stream, messages=messages, temperature=0, stop_token_ids=[whole[length - 1]]
    )
    assert reason == "stop"
    assert verified(field, messages).choices[0].token_ids == whole[:length]


@pytest.mark.parametrize("stream", [False, True])
def test_eos_ignored_and_not(api: Api, prefill: TransformersPrefill, verified: Verified, stream: bool) -> None:
    eos = prefill.tokenizer.eos_token_id
    arguments: dict[str, Any] = {"stream": stream, "messages": SUM, "temperature": 0, "max_tokens": 80}
    _, reason, field = text_and_field(api, **arguments)
    stopped = verified(field, SUM).choices[0].token_ids
    assert (reason, stopped[-1], stopped.count(eos)) == ("stop", eos, 1)
    _, reason, field = text_and_field(api, **arguments, ignore_eos=True)
    ran_on = verified(field, SUM).choices[0].token_ids
    assert (reason, len(ran_on), ran_on[: len(stopped)]) == ("length", 80, stopped)


def test_min_tokens(api: Api, prefill: TransformersPrefill, verified: Verified) -> None:
    without, _, _ = text_and_field(api, stream=False, messages=SUM, temperature=0)
    assert len(prefill.tokenizer(without)["input_ids"]) < 40
    _, _, field = text_and_field(api, stream=False, messages=SUM, temperature=0, min_tokens=40, max_tokens=90)
    token_ids = verified(field, SUM).choices[0].token_ids
    assert len(token_ids) >= 40
    assert prefill.tokenizer.eos_token_id not in token_ids[:40]


@pytest.mark.parametrize("stream", [False, True])
def test_one_token(api: Api, verified: Verified, stream: bool) -> None:
    _, reason, field = text_and_field(api, stream=stream, messages=SUM, max_tokens=1)
    assert reason == "length"
    assert len(verified(field, SUM).choices[0].token_ids) == 1


@pytest.mark.parametrize("prompt_length", [1900, 2016, 2047])
def test_to_the_end_of_the_context(
    api: Api, prefill: TransformersPrefill, verified: Verified, prompt_length: int
) -> None:
    """Without `max_tokens`; every digit is a token."""
    frame = len(prefill.render([{"role": "user", "content": ""}]))
    messages = [{"role": "user", "content": ("1234567890" * 205)[: prompt_length - frame]}]
    _, reason, field = text_and_field(api, stream=False, messages=messages, temperature=1, ignore_eos=True)
    assert reason == "length"
    proofs = verified(field, messages)
    assert (proofs.prompt.num_tokens, len(proofs.choices[0].token_ids)) == (prompt_length, 2048 - prompt_length)


@pytest.mark.parametrize("stream", [False, True])
def test_choices_that_end_at_different_times(api: Api, verified: Verified, stream: bool) -> None:
    body: dict[str, Any] = {"messages": STORY, "n": 3, "temperature": 2, "max_tokens": 150}
    if stream:
        events = api.stream(CHAT, **body)
        finishes = [e for e in events if e["choices"] and e["choices"][0]["finish_reason"]]
        ended = [event["choices"][0]["index"] for event in finishes]
        proven = [[choice["index"] for choice in event["toploc_proofs"]["choices"]] for event in finishes]
        assert proven == [sorted(ended[: number + 1]) for number in range(3)]
        assert sum("toploc_proofs" in event for event in events) == 3
        field = finishes[-1]["toploc_proofs"]
    else:
        field = api.post(CHAT, **body)["toploc_proofs"]
    choices = verified(field, STORY).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.token_ids for choice in choices}) == 3


def test_clients_that_leave(api: Api, verified: Verified) -> None:
    """More of them than there are slots: had each kept one, those who stay would get no proofs."""
    random = Random(0)
    delays = [random.randrange(1, 60) for _ in range(60)]

    def leave(events: int) -> None:
        body = {"model": "toploc-mini", "messages": STORY, "stream": True, "ignore_eos": True, "n": 1 + events % 2}
        with api.http.stream("POST", CHAT, json=body) as response:
            for _, _ in zip(range(2 * events), response.iter_lines(), strict=False):
                pass

    def stay(seed: int) -> dict[str, Any]:
        return api.chat(SUM, temperature=1, ignore_eos=True, max_tokens=20 + seed)["toploc_proofs"]

    assert sum(1 + events % 2 for events in delays) > 40
    with ThreadPoolExecutor(24) as pool:
        leaving = pool.map(leave, delays)
        staying = list(pool.map(stay, range(16)))
        list(leaving)
    with ThreadPoolExecutor(32) as pool:
        staying += pool.map(stay, range(32))
    for field in staying:
        verified(field, SUM)


def test_many_short_answers_at_once(api: Api, verified: Verified) -> None:
    """As many as the engine runs end in one step, and as many more are begun before their proofs are fetched."""

    def ask(seed: int) -> tuple[list[int], dict[str, Any]]:
        prompt = [100 + seed, 200 + seed]
        return prompt, api.post("/v1/completions", prompt=prompt, n=2, temperature=1, max_tokens=1)["toploc_proofs"]

    with ThreadPoolExecutor(32) as pool:
        for prompt, field in pool.map(ask, range(64)):
            assert len(verified(field, prompt).choices) == 2
