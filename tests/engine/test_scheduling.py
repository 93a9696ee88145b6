"""When the engine computes a request's tokens in another order than one by one: in chunks, again, or on trial."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from models.corpus import exchange
from models.drafters import DRAFTERS
from models.lists import story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs
    from toploc.verifier.prefill import TransformersPrefill

COMPLETIONS = "/v1/completions"
# The model repeats itself, so that many drafts are right.
STORY = story(Random(3))
AGAIN = [
    {"role": "user", "content": STORY.question},
    {"role": "assistant", "content": STORY.full},
    {"role": "user", "content": "Please say that again."},
]


@pytest.fixture(scope="module")
def crowded(launch: Callable[..., LocalServer], api_of: type[Api]) -> Iterator[Api]:
    """Steps of at most 64 tokens, and room for 2,528 tokens in all: little more than one longest request.

    A request with a `seed` would kill the engine here, with or without proofs (vLLM 0.32 on a CPU, chunked prefill).
    """
    options = ["--max-num-batched-tokens", "64", "--block-size", "32", "--num-gpu-blocks-override", "80"]
    with launch(*options, "--scheduling-policy", "priority") as server, api_of(server.url) as api:
        yield api


def speculating(launch: Callable[..., LocalServer], **config: Any) -> LocalServer:
    options = ["--speculative-config", json.dumps({"num_speculative_tokens": 3, **config})]
    return launch(*options, "--max-num-batched-tokens", "256")


@pytest.fixture(scope="module")
def guessing(launch: Callable[..., LocalServer], api_of: type[Api]) -> Iterator[Api]:
    """Drafts of three tokens from what followed the last time."""
    with speculating(launch, method="ngram", prompt_lookup_max=3) as server, api_of(server.url) as api:
        yield api


@pytest.fixture(scope="module", params=DRAFTERS)
def drafted(
    request: pytest.FixtureRequest,
    launch: Callable[..., LocalServer],
    api_of: type[Api],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    """Drafts of three tokens by a model."""
    config = DRAFTERS[request.param](tmp_path_factory.mktemp("drafter") / "model")
    with speculating(launch, **config) as server, api_of(server.url) as api:
        yield api


def random_prompt(length: int) -> list[int]:
    random = Random(length)
    return [random.randrange(8, 1000) for _ in range(length)]


@pytest.mark.parametrize("prompt_length", [63, 64, 65, 128, 1000])
def test_chunked_prefill(crowded: Api, verified: Callable[..., ToplocProofs], prompt_length: int) -> None:
    prompt = random_prompt(prompt_length)
    response = crowded.post(COMPLETIONS, prompt=prompt, max_tokens=70, temperature=1, ignore_eos=True)
    verified(response["toploc_proofs"], prompt)


def test_preemption(crowded: Api, verified: Callable[..., ToplocProofs]) -> None:
    """Requests lose their place in the cache in the middle of an answer, and are computed anew from their tokens,
    more of them at a time than a step or a chunk holds."""

    def ask(seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        messages = [{"role": "user", "content": exchange(Random(seed)).question + " Again." * (seed % 7)}]
        body = {"temperature": 1, "ignore_eos": True, "max_tokens": 150 + 20 * (seed % 6), "n": 1 + seed % 2}
        return messages, crowded.chat(messages, **body)["toploc_proofs"]

    before, answers = crowded.metric("vllm:num_preemptions_total"), []
    with ThreadPoolExecutor(20) as pool:
        # How many there are of it depends on when requests arrive.
        for _ in range(5):
            answers += pool.map(ask, range(20))
            if crowded.metric("vllm:num_preemptions_total") - before >= 5:
                break
    assert crowded.metric("vllm:num_preemptions_total") - before >= 5
    for messages, field in answers:
        verified(field, messages)


def test_verifications_wait_behind_answers(crowded: Api) -> None:
    """Of 64 verifications the engine has room for two, of 15 steps each; an answer comes before all others of them."""
    body = {"model": "toploc-mini", "prompt": random_prompt(900), "max_tokens": 33, "temperature": 0}
    item = {"request": body, "response": crowded.post(COMPLETIONS, **body)}
    with crowded.http.stream("POST", "/v1/toploc/verify", json={"items": [item] * 64}) as stream:
        lines = stream.iter_lines()
        verdicts = [json.loads(next(lines))["report"]["verdict"]]
        crowded.chat([{"role": "user", "content": "Hi"}], max_tokens=2)
        waiting = crowded.metric("toploc:verifications_running")
        verdicts += [json.loads(line)["report"]["verdict"] for line in lines]
    assert verdicts == ["accepted"] * 64
    assert waiting > 12, "nearly all were done before an answer that came after them"


def rejected(api: Api) -> float:
    drafted = api.metric("vllm:spec_decode_num_draft_tokens_total")
    return drafted - api.metric("vllm:spec_decode_num_accepted_tokens_total")


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.slow), True])
def test_rejected_drafts_leave_no_trace(guessing: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    accepted, before = guessing.metric("vllm:spec_decode_num_accepted_tokens_total"), rejected(guessing)

    def ask(number: int) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"messages": AGAIN, "temperature": number % 2, "ignore_eos": True}
        body |= {"max_tokens": 60 + 7 * number, "n": 1 + number % 2}
        if not stream:
            return [guessing.post("/v1/chat/completions", **body)["toploc_proofs"]]
        events = guessing.stream("/v1/chat/completions", **body)
        return [event["toploc_proofs"] for event in events if "toploc_proofs" in event][-1:]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert guessing.metric("vllm:spec_decode_num_accepted_tokens_total") > accepted
    assert rejected(guessing) - before > 50
    for number, fields in enumerate(answers):
        assert sum(len(verified(field, AGAIN).choices) for field in fields) == 1 + number % 2


def test_sampled_answers_among_drafts(guessing: Api) -> None:
    """Tokens that were drafted and accepted, or drawn in their place, are the model's own under the request's options.
    vLLM's sampler alone would take the options from uninitialised memory on a CPU."""
    accepted = guessing.metric("vllm:spec_decode_num_accepted_tokens_total")

    def ask(number: int) -> tuple[str, str]:
        body: dict[str, Any] = {"messages": AGAIN, "temperature": 1, "max_tokens": 100, "ignore_eos": number < 8}
        if number % 2:
            body |= {"temperature": 0.7, "top_p": 0.9, "top_k": 40}
        report = guessing.report(guessing.chat(**body), **body)
        [tokens] = [check for check in report["checks"] if check["name"] == "tokens"]
        return report["verdict"], tokens["status"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(16)))
    assert [verdict for verdict, _ in found] == ["accepted"] * 16
    assert {status for _, status in found} <= {"passed", "weak"}
    assert guessing.metric("vllm:spec_decode_num_accepted_tokens_total") > accepted
    assert rejected(guessing) > 0


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_stop_strings_among_drafts(
    guessing: Api, prefill: TransformersPrefill, verified: Callable[..., ToplocProofs], share: float, include: bool
) -> None:
    """The engine may accept drafts behind the stop string in the very step that completes it."""
    whole = guessing.chat(AGAIN, temperature=0)["choices"][0]["message"]["content"]
    at = int(len(whole) * share)
    stop = whole[at : at + 7]
    before = guessing.metric("vllm:spec_decode_num_accepted_tokens_total")
    response = guessing.chat(AGAIN, temperature=0, stop=[stop], include_stop_str_in_output=include)
    assert guessing.metric("vllm:spec_decode_num_accepted_tokens_total") > before
    text = response["choices"][0]["message"]["content"]
    assert text.endswith(stop) if include else stop not in text
    [choice] = verified(response["toploc_proofs"], AGAIN).choices
    assert stop in prefill.tokenizer.decode(choice.token_ids)
    assert response["usage"]["completion_tokens"] == len(choice.token_ids)


def test_a_long_prompt_among_drafts(guessing: Api, verified: Callable[..., ToplocProofs]) -> None:
    """Longer than a step, and repetitive, so that drafts are made from its first token on."""
    prompt = random_prompt(40) * 20
    response = guessing.post(COMPLETIONS, prompt=prompt, max_tokens=100, temperature=0, ignore_eos=True)
    verified(response["toploc_proofs"], prompt)


def test_models_that_draft(drafted: Api, verified: Callable[..., ToplocProofs]) -> None:
    """Proofs and tokens are the target's, whoever drafts; the target may have more outputs for it."""

    def ask(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        body: dict[str, Any] = {"messages": AGAIN, "temperature": number % 2, "ignore_eos": True}
        body |= {"max_tokens": 60 + 7 * number}
        answer = drafted.chat(**body)
        return answer["toploc_proofs"], drafted.report(answer, **body)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert rejected(drafted) > 0
    for field, report in answers:
        verified(field, AGAIN)
        assert report["verdict"] == "accepted", str(report)
