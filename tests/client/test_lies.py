"""Each way around the client, as one changed attribute of a provider: what reaches the application was checked, or
counted as unchecked, or raised. The verdicts are the real verifier's."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from lying_provider import EVIL, LyingProvider
from openai.types.chat import ChatCompletionChunk
from toploc_client import MissingProofs, RejectedResponse, UnacceptedResponse, UndecidedResponse

from toploc.report import REQUIRED, Check, Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from toploc.verifier.transformers import TransformersVerifier

ACCEPTED = Report.of([Check(name=name, status="passed", message="fine") for name in REQUIRED])  # type: ignore[arg-type]
REJECTED = Report.of([Check(name="proofs", status="failed", reason="activations", message="chunk 3")])


class Asked:
    """A verifier that remembers what it was asked."""

    def __init__(self, verify: Callable[[bytes], Report]) -> None:
        self.evidence: list[dict[str, Any]] = []
        self._verify = verify

    def verify(self, evidence: bytes) -> Report:
        self.evidence.append(json.loads(evidence))
        return self._verify(evidence)


@pytest.fixture
def asked(mini: TransformersVerifier) -> Asked:
    return Asked(mini.verify)


def evil(response: dict[str, Any], *, field: bool = False) -> dict[str, Any]:
    """The answer that the provider would like to be believed."""
    if response.get("object") == "response":
        response["output"][-1]["content"][0]["text"] = EVIL
    elif "text" in response["choices"][0]:
        response["choices"][0]["text"] = EVIL
    else:
        response["choices"][0]["message"]["content"] = EVIL
    if not field:
        response.pop("toploc_proofs", None)
    return response


def chat(client: Any, provider: LyingProvider, **more: Any) -> Any:
    return client.chat.completions.create(**asking(provider), **more)


def asking(provider: LyingProvider) -> dict[str, Any]:
    """The recorded request, as the SDK takes it."""
    names = {"model", "messages", "input", "prompt"} & provider.request.keys()
    named = {name: provider.request[name] for name in names}
    return {**named, "extra_body": {name: value for name, value in provider.request.items() if name not in named}}


def test_an_honest_provider_is_accepted_in_every_way(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    provider.fresh = True
    client = provider.client(verifier=asked)
    completions = client.chat.completions
    text = provider.honest["choices"][0]["message"]["content"]
    assert chat(client, provider).choices[0].message.content == text
    assert said(chat(client, provider, stream=True)) == text
    assert completions.with_raw_response.create(**asking(provider)).parse().choices[0].message.content == text
    for read in READERS.values():
        with completions.with_streaming_response.create(**asking(provider)) as reply:
            assert json.loads(read(reply))["choices"][0]["message"]["content"] == text
    with completions.with_streaming_response.create(**asking(provider), stream=True) as reply:
        assert "data: [DONE]" in "".join(reply.iter_text())
    with completions.stream(**asking(provider)) as helper:
        assert helper.get_final_completion().choices[0].message.content == text
    assert client.checks.accepted == len(asked.evidence) == 5 + len(READERS)
    assert client.checks.unchecked == client.checks.undecided == client.checks.rejected == 0


READERS: dict[str, Callable[[Any], Any]] = {
    "json": lambda reply: json.dumps(reply.json()),
    "text": lambda reply: reply.text(),
    "read": lambda reply: reply.read(),
    "parse": lambda reply: reply.parse().to_json(),
    "iter_bytes": lambda reply: b"".join(reply.iter_bytes()),
    "iter_text": lambda reply: "".join(reply.iter_text()),
    "iter_lines": lambda reply: "\n".join(reply.iter_lines()),
    "http_response": lambda reply: reply.http_response.read(),
}


def said(stream: Any) -> str:
    return "".join(event.choices[0].delta.content or "" for event in stream if event.choices)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("lies", [False, True])
def test_a_redirect_is_no_way_around(asked: Asked, status: int, lies: bool) -> None:
    """The followed reply is held against what was asked at first."""
    provider = LyingProvider("greedy")
    provider.redirect = status
    client = provider.client(verifier=asked)
    if not lies:
        chat(client, provider)
        assert (client.checks.accepted, asked.evidence[0]["request"]) == (1, provider.request)
        return
    provider.change = evil
    with pytest.raises(MissingProofs):
        chat(client, provider)
    provider.change = lambda response: evil(response, field=True)
    with pytest.raises(RejectedResponse):
        chat(client, provider)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("field", [False, True])
def test_a_reply_that_is_read_in_parts_is_checked(asked: Asked, read: str, field: bool) -> None:
    provider = LyingProvider("greedy")
    provider.change = lambda response: evil(response, field=field)
    client = provider.client(verifier=asked)
    with client.chat.completions.with_streaming_response.create(**asking(provider)) as reply:  # noqa: SIM117
        with pytest.raises(RejectedResponse if field else MissingProofs):
            READERS[read](reply)
    with client.chat.completions.with_streaming_response.create(**asking(provider), stream=True) as reply:  # noqa: SIM117
        with pytest.raises(RejectedResponse if field else MissingProofs):
            list(reply.iter_lines())


def test_raw_bytes_are_not_delivered(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    client = provider.client(verifier=asked)
    with client.chat.completions.with_streaming_response.create(**asking(provider)) as reply:  # noqa: SIM117
        with pytest.raises(MissingProofs, match="raw bytes"):
            list(reply.http_response.iter_raw())
    lenient = client.with_options(require_proofs=False)
    with lenient.chat.completions.with_streaming_response.create(**asking(provider)) as reply:
        assert b"".join(reply.http_response.iter_raw())
    assert lenient.checks.unchecked == 1


def test_async_readers_are_checked_before_they_have_it(asked: Asked) -> None:
    async def run() -> None:
        provider = LyingProvider("greedy")
        provider.change = lambda response: evil(response, field=True)
        async with provider.async_client(verifier=asked) as client:
            for stream in (False, True):
                create = client.chat.completions.with_streaming_response.create
                async with create(**asking(provider), stream=stream) as reply:
                    with pytest.raises(RejectedResponse):
                        await reply.read()
            with pytest.raises(RejectedResponse):
                await client.chat.completions.create(**asking(provider))
            stream = await client.chat.completions.create(**asking(provider), stream=True)
            with pytest.raises(RejectedResponse):
                [event async for event in stream]
            assert client.checks.rejected == 4

    asyncio.run(run())


@pytest.mark.parametrize("required", [None, True, False])
def test_an_answer_without_the_field(asked: Asked, required: bool | None, caplog: pytest.LogCaptureFixture) -> None:
    """A verifier alone means that there has to be something to verify."""
    provider = LyingProvider("greedy")
    provider.change = evil
    client = provider.client(verifier=asked, require_proofs=required)
    for stream in (False, True):
        if required is False:
            result = chat(client, provider, stream=stream)
            assert (said(result) if stream else result.choices[0].message.content) == EVIL
            continue
        with pytest.raises(MissingProofs):
            list(chat(client, provider, stream=stream))
    assert client.checks.unchecked == (2 if required is False else 0)
    assert ("was not checked" in caplog.text) is (required is False)


@pytest.mark.parametrize("rate", [1.0, 0.0])
@pytest.mark.parametrize("field", [False, True])
def test_trusted_keys_are_checked_of_every_answer(tmp_path: Any, asked: Asked, rate: float, field: bool) -> None:
    from toploc.receipts.keys import SigningKey

    provider = LyingProvider("greedy")
    provider.change = lambda response: evil(response, field=field)
    key = SigningKey.create(tmp_path / "key.pem").public
    for verifier in ((), asked):
        client = provider.client(verifier=verifier, trusted_keys=[key], audit_rate=rate, require_proofs=False)
        with pytest.raises(RejectedResponse, match="receipt"):
            chat(client, provider)


def leave(client: Any, provider: LyingProvider, how: str) -> str:
    stream = chat(client, provider, stream=True)
    words = []
    for event in stream:
        words.append(event.choices[0].delta.content or "")
        if event.choices[0].finish_reason or (how == "soon" and len(words) == 3):
            break
    if how == "del":
        del stream
    else:
        stream.close()
    return "".join(words)


@pytest.mark.parametrize("how", ["close", "soon"])
def test_a_stream_that_is_left(asked: Asked, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """After its proofs it is checked in the background; before, it is counted and the log says so."""
    provider = LyingProvider("greedy")
    client = provider.client(verifier=asked)
    leave(client, provider, how)
    assert client.flush_checks(60)
    assert (client.checks.accepted, client.checks.unchecked) == ((1, 0) if how == "close" else (0, 1))
    assert ("left before" in caplog.text) is (how == "soon")


def test_the_event_that_ends_a_choice_without_proofs_is_not_delivered(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    provider.change = evil
    with pytest.raises(MissingProofs):
        leave(provider.client(verifier=asked), provider, "close")
    lenient = provider.client(verifier=asked, require_proofs=False)
    assert leave(lenient, provider, "close") == EVIL
    assert lenient.checks.unchecked == 1


def test_a_reader_of_bytes_that_leaves(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    client = provider.client(verifier=asked)
    with client.chat.completions.with_streaming_response.create(**asking(provider), stream=True) as reply:
        for part in reply.iter_bytes():
            assert part
            break
    assert client.checks.unchecked == 1


def response_stream(client: Any, provider: LyingProvider) -> str:
    stream = client.responses.create(**asking(provider), stream=True)
    return "".join(event.delta for event in stream if event.type == "response.output_text.delta")


def only_deltas(events: list[dict[str, Any]], text: str = EVIL) -> list[dict[str, Any]]:
    first = next(event for event in events if event["type"] == "response.output_text.delta")
    return [events[0], {**first, "delta": text}]


def misplaced(provider: LyingProvider, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    begun = {**events[0]["response"], "toploc_proofs": provider.field}
    return [*only_deltas(events), {"type": "response.in_progress", "response": begun}]


RESPONSE_LIES: dict[str, tuple[Callable[[LyingProvider, list[dict[str, Any]]], Any], type[Exception]]] = {
    "deltas say something else": (lambda _, e: [*only_deltas(e), e[-1]], RejectedResponse),
    "no last event": (lambda _, e: only_deltas(e), MissingProofs),
    "a field without a last event": (misplaced, RejectedResponse),
    "a second last event": (lambda _, e: [*e, {**e[-1], "sequence_number": 99}], RejectedResponse),
    "a delta after the last event": (lambda _, e: [*e, only_deltas(e)[1]], RejectedResponse),
    "an earlier output": (
        lambda _, e: [{**e[0], "response": {**e[0]["response"], "output": [{"type": "message"}]}}, *e[1:]],
        RejectedResponse,
    ),
    "an item of its own": (
        lambda _, e: [
            *e[:-1],
            {"type": "response.output_item.done", "item": said_item(EVIL), "output_index": 9},
            e[-1],
        ],
        RejectedResponse,
    ),
    "the end of a text": (
        lambda _, e: [*e[:-1], {"type": "response.output_text.done", "text": EVIL, "item_id": "m"}, e[-1]],
        RejectedResponse,
    ),
    "a delta of another kind": (
        lambda _, e: [*e[:-1], {"type": "response.code_interpreter_call_code.delta", "delta": EVIL}, e[-1]],
        RejectedResponse,
    ),
}


def said_item(text: str) -> dict[str, Any]:
    return {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


@pytest.mark.parametrize("lie", RESPONSE_LIES)
def test_events_of_responses_that_say_something_else(lie: str) -> None:
    """Whatever verifiers say of the response that the last event brings."""
    provider = LyingProvider("response-items-stream")
    lied, error = RESPONSE_LIES[lie]
    client = provider.client(verifier=lambda _: ACCEPTED)
    response_stream(client, provider)
    assert client.checks.accepted == 1
    provider.events = lambda events: lied(provider, events)
    with pytest.raises(error):
        response_stream(provider.client(verifier=lambda _: ACCEPTED), provider)


CHAT_LIES: dict[str, Callable[[LyingProvider, list[dict[str, Any]]], Any]] = {
    "goes on after its end": lambda _, e: [*e, {**e[0], "choices": [{"index": 0, "delta": {"content": EVIL}}]}],
    "a second end": lambda _, e: [*e, next(event for event in e if "toploc_proofs" in event)],
    "another choice": lambda _, e: [*e[:-1], {**e[0], "choices": [{"index": 1, "delta": {"content": EVIL}}]}, e[-1]],
    "choice -1": lambda _, e: [*e[:-1], {**e[0], "choices": [{"index": -1, "delta": {"content": EVIL}}]}, e[-1]],
    "choices are no list": lambda _, e: [*e[:-1], {**e[0], "choices": "x"}, e[-1]],
    "another model": lambda _, e: [*e[:-1], {**e[-1], "model": "another"}],
    "another id": lambda _, e: [{**e[0], "id": "another"}, *e[1:]],
    "no choices at all": lambda _, e: [{**e[-1], "choices": []}],
    "an event that is no JSON": lambda _, e: [*e[:-1], b"data: {\n\n", e[-1]],
    "an event that is no object": lambda _, e: [*e[:-1], [1], e[-1]],
    "a field that is junk": lambda _, e: [*e[:-1], {**e[-1], "toploc_proofs": {"junk": 1}}],
    "two fields": lambda p, e: [{**e[0], "toploc_proofs": p.field}, *e[1:]],
    "an event after [DONE]": lambda _, e: [*e, b"data: [DONE]\n\n", e[0]],
}


@pytest.mark.parametrize("lie", CHAT_LIES)
def test_events_of_a_chat_that_say_something_else(lie: str, mini: TransformersVerifier) -> None:
    provider = LyingProvider("greedy")
    provider.events = lambda events: CHAT_LIES[lie](provider, events)
    client = provider.client(verifier=mini.verify)
    with pytest.raises(UnacceptedResponse):  # noqa: SIM117
        with client.chat.completions.with_streaming_response.create(**asking(provider), stream=True) as reply:
            reply.read()
    if "[DONE]" not in lie:  # behind which the SDK's streams do not look
        with pytest.raises(UnacceptedResponse):
            list(chat(client, provider, stream=True))


@pytest.mark.parametrize("cumulates", [True, False])
@pytest.mark.parametrize("name", ["two-choices", "completion-many"])
def test_choices_come_together_however_often_each_is_sent(
    name: str, cumulates: bool, mini: TransformersVerifier
) -> None:
    provider = LyingProvider(name)
    provider.cumulates = cumulates
    client = provider.client(verifier=mini.verify)
    resource = client.completions if name.startswith("completion") else client.chat.completions
    stream = resource.create(**asking(provider), stream=True)
    list(stream)
    assert stream.toploc_proofs.model_dump(mode="json", exclude_none=True) == provider.field
    assert client.checks.accepted == 1


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("name", ["token_ids", "proofs", "seed"])
def test_two_events_with_other_proofs_of_one_choice(name: str, earlier: bool) -> None:
    """One of them was for somebody who reads that event alone."""
    provider = LyingProvider("two-choices")

    def change(events: list[dict[str, Any]]) -> None:
        first, second = (event["toploc_proofs"]["choices"] for event in events if "toploc_proofs" in event)
        changed, other = (first, second) if earlier else (second, first)
        changed[0] = {**other[0], name: {"token_ids": [1], "proofs": other[0]["proofs"][::-1], "seed": 9}[name]}
        assert changed[0] != other[0]

    provider.events = change
    client = provider.client(verifier=lambda _: ACCEPTED)
    with pytest.raises(RejectedResponse, match="events_disagree"):
        list(client.chat.completions.create(**asking(provider), stream=True))


@pytest.mark.parametrize(
    "choices",
    [
        lambda _: [],
        lambda _: None,
        lambda c: c * 2,
        lambda c: [*c, {**c[0], "index": 1}],
        lambda c: [{**c[0], "index": 3}],
    ],
    ids=["none", "null", "twice", "one more", "another number"],
)
def test_other_choices_than_were_asked_for(choices: Any) -> None:
    provider = LyingProvider("greedy")
    provider.change = lambda response: response.update(choices=choices(response["choices"]))
    with pytest.raises(RejectedResponse, match="choices"):
        chat(provider.client(verifier=lambda _: ACCEPTED), provider)


@pytest.mark.parametrize("stream", [False, True])
def test_one_choice_that_the_server_could_not_prove(
    mini: TransformersVerifier, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are checked, it is counted, and all are delivered; unless proofs are required of every choice."""
    provider = LyingProvider("two-choices")
    error = {"code": "capture_slots_exhausted", "message": "more requests in flight than …"}

    def lose(response: dict[str, Any]) -> None:
        response["toploc_proofs"]["choices"][1] = {"index": 1, "token_ids": [], "error": error}

    provider.change = lose
    client = provider.client(verifier=mini.verify)
    list(chat(client, provider, stream=stream))
    assert (client.checks.accepted, client.checks.unchecked) == (1, 1)
    assert "choices 1 have no proofs" in caplog.text
    with pytest.raises(MissingProofs) as raised:
        list(chat(provider.client(verifier=mini.verify, require_proofs=True), provider, stream=stream))
    assert raised.value.code == "capture_slots_exhausted"

    def lie(response: dict[str, Any]) -> None:
        lose(response)
        response["choices"][0]["message"]["content"] = EVIL

    provider.change = lie
    with pytest.raises(RejectedResponse):
        list(chat(provider.client(verifier=mini.verify), provider, stream=stream))


def test_what_is_fetched_has_no_proofs(asked: Asked) -> None:
    provider = LyingProvider("response-items")
    client = provider.client(verifier=asked, fetch_proofs=False)
    provider.change = lambda response: response.pop("toploc_proofs") and None
    with pytest.raises(MissingProofs, match="fetched"):
        client.responses.retrieve("resp_1")
    lenient = client.with_options(require_proofs=False)
    assert lenient.responses.retrieve("resp_1").output
    assert lenient.checks.unchecked == 1


def test_a_response_in_the_background() -> None:
    """While the server works nothing is said. What is fetched in the end is checked against the request, if it has
    proofs."""
    provider = LyingProvider("response-items")
    provider.request["background"] = True
    name = provider.honest["id"]
    error = {"code": "unfinished", "message": "later"}
    working = {
        **provider.honest,
        "status": "queued",
        "output": [],
        "toploc_proofs": {"dtype": "bfloat16", "model": "m", "error": error},
    }
    provider.change = lambda _: working
    verifier = Asked(lambda _: ACCEPTED)
    client = provider.client(verifier=verifier)
    client.responses.create(**asking(provider))
    client.responses.retrieve(name)
    assert client.checks == type(client.checks)()
    provider.fetched = provider.honest
    client.responses.retrieve(name)
    assert client.checks.accepted == 1
    assert verifier.evidence[0]["request"] == provider.request
    provider.fetched = {k: v for k, v in provider.honest.items() if k != "toploc_proofs"}
    with pytest.raises(MissingProofs):
        client.responses.retrieve(name)


def fetching(stream: bool) -> tuple[LyingProvider, Asked, Any, Callable[[], Any]]:
    """A provider, a verifier, a client that has asked in the background, and what fetches the response: whole, or as
    the stream's last events, which the client had left."""
    provider = LyingProvider("response-items")
    verifier = Asked(lambda _: ACCEPTED)
    client = provider.client(verifier=verifier)
    name = provider.honest["id"]
    if not stream:
        provider.change = lambda response: {**response, "status": "queued", "output": []}
        client.responses.create(background=True, **asking(provider))
        provider.fetched = provider.honest
        return provider, verifier, client, lambda: client.responses.retrieve(name)
    with client.responses.create(background=True, stream=True, **asking(provider)) as begun:
        next(iter(begun))
    return provider, verifier, client, lambda: [*client.responses.retrieve(name, stream=True, starting_after=1)]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_fetched_is_checked_against_its_request(stream: bool) -> None:
    provider, verifier, client, fetch = fetching(stream)
    assert fetch()
    assert client.checks.accepted == 1
    assert verifier.evidence[-1]["request"] == {**provider.asked[0], "background": True}
    fetch()  # once more is no replay
    assert client.checks.accepted == 2


@pytest.mark.parametrize("stream", [False, True])
def test_another_response_than_the_one_that_was_fetched(stream: bool) -> None:
    provider, _, _, fetch = fetching(stream)
    other = {**provider.honest, "id": "resp_other"}
    provider.fetched, provider.change = other, lambda _: other
    with pytest.raises(RejectedResponse, match="another response"):
        fetch()


def test_a_resumed_stream_says_how_the_response_ends() -> None:
    provider, _, _, fetch = fetching(stream=True)

    def change(events: list[dict[str, Any]]) -> None:
        next(event for event in events if event["type"].endswith("text.delta"))["delta"] += "!"

    provider.events = change
    with pytest.raises(RejectedResponse, match="events_disagree"):
        fetch()


def test_an_id_that_two_requests_were_given_is_of_neither() -> None:
    _, verifier, client, fetch = fetching(stream=False)
    client.responses.create(model="m", input="something else", background=True)
    fetch()
    assert verifier.evidence[-1]["request"] is None


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_response_that_came_to_nothing_is_delivered(status: str) -> None:
    provider, _, _, fetch = fetching(stream=False)
    provider.fetched = {"id": provider.honest["id"], "object": "response", "status": status, "output": []}
    assert fetch().status == status
    provider.fetched = {**provider.honest, "status": status}
    provider.fetched.pop("toploc_proofs")
    with pytest.raises(MissingProofs):
        fetch()


def test_routes_that_say_nothing_are_left_alone(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    client = provider.client(verifier=asked)
    client.get("/models", cast_to=object)
    client.post("/embeddings", body={}, cast_to=object)
    assert client.checks == type(client.checks)()
    with pytest.raises(UnacceptedResponse):
        client.post("/some/route/of/tomorrow", body={}, cast_to=object)


def test_draws_are_by_what_the_server_does_not_know() -> None:
    """One id for all answers is no way to be passed over always."""
    asked = Asked(lambda _: REJECTED)
    provider = LyingProvider("greedy")
    provider.change = lambda response: evil(response, field=True)
    never = 0
    for seed in range(10):
        client = provider.client(verifier=asked, audit_rate=0.1, on_reject="warn", audit_seed=f"s{seed}")
        for _ in range(30):
            chat(client, provider)
        never += not asked.evidence
        asked.evidence.clear()
    assert never <= 3  # 0.4 by chance


def test_the_share_that_is_drawn() -> None:
    provider = LyingProvider("greedy")
    provider.fresh = True
    client = provider.client(verifier=lambda _: ACCEPTED, audit_rate=0.3)
    for _ in range(300):
        chat(client, provider)
    assert client.checks.accepted + client.checks.unchecked == 300
    assert 50 <= client.checks.accepted <= 130  # five standard deviations


@pytest.mark.parametrize("stream", [False, True])
def test_a_verifier_that_refuses_decides_nothing(stream: bool) -> None:
    """The maker of an answer can bring about a refusal: it is not delivered as one that nobody could check."""

    def refuse(_: bytes) -> Report:
        raise RuntimeError("I cannot read this")

    provider = LyingProvider("greedy")
    client = provider.client(verifier=refuse)
    with pytest.raises(UndecidedResponse) as raised:
        list(chat(client, provider, stream=stream))
    assert "REJECTED" not in str(raised.value)
    assert (client.checks.undecided, client.checks.spooled) == (1, 0)
    seen: list[Any] = []
    told = provider.client(verifier=refuse, on_undecided=lambda *given: seen.append(given), on_reject="raise")
    list(chat(told, provider, stream=stream))
    assert [report.verdict for _, report in seen] == ["undecided"]
    list(chat(provider.client(verifier=refuse, require_proofs=False), provider, stream=stream))
    list(chat(provider.client(verifier=refuse, on_undecided="warn"), provider, stream=stream))


BODIES = {
    "no JSON": b"{",
    "a text": b'"x"',
    "a number too long for an int": b'{"choices": ' + b"1" * 5000 + b"}",
    "deep": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "UTF-16": json.dumps({"choices": []}).encode("utf-16"),
    "no UTF-8": b'{"id": "\xff"}',
    "a second object": b'{"choices": []}, "request": {}',
    "nothing": b"",
    "not a number": b'{"choices": NaN, "toploc_proofs": Infinity}',
}


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_are_none(body: str, kind: str) -> None:
    provider = LyingProvider("greedy")
    provider.content, provider.content_type = BODIES[body], kind
    client = provider.client(verifier=lambda _: ACCEPTED)
    with pytest.raises((UnacceptedResponse, openai.OpenAIError)):
        chat(client, provider)
    with pytest.raises((UnacceptedResponse, openai.OpenAIError)):
        list(chat(client, provider, stream=True))
    with (
        pytest.raises((UnacceptedResponse, openai.OpenAIError)),
        client.chat.completions.stream(**asking(provider)) as h,
    ):
        h.get_final_completion()
    with pytest.raises((UnacceptedResponse, openai.OpenAIError)):
        client.chat.completions.parse(**asking(provider))


def only_own_errors() -> Any:
    return suppress(UnacceptedResponse, openai.OpenAIError)


def test_no_leaf_of_an_event_raises_another_error() -> None:
    """Every leaf of every event, replaced by what is no such leaf."""
    for name in (
        "tool-call",
        "two-choices",
        "response-functions-parallel-stream",
        "completion-many",
        "chat-logprobs-stream",
    ):
        provider = LyingProvider(name)
        plain: list[Any] = []
        provider.events = plain.extend
        run_stream(provider)
        for path in [p for number, event in enumerate(plain) for p in leaves(event, (number,))][::11]:
            for value in (None, "\ud800", [], {"index": 10**30}, -1e999):

                def lie(events: list[Any], path: Any = path, value: Any = value) -> None:
                    place: Any = events
                    for step in path[:-1]:
                        place = place[step]
                    place[path[-1]] = value

                provider.events = lie
                with only_own_errors():
                    run_stream(provider)


def leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Paths in an event; of lists of numbers, and of proofs, the first is enough."""
    children = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:2]
        if isinstance(value, list)
        else []
    )
    for name, child in children:
        yield (*path, name)
        yield from leaves(child, (*path, name))


def run_stream(provider: LyingProvider) -> None:
    client = provider.client(verifier=lambda _: ACCEPTED)
    if provider.path == "/v1/responses":
        stream: Any = client.responses.create(**asking(provider), stream=True)
    else:
        stream = client.post(
            provider.path.removeprefix("/v1"),
            body={**provider.request, "stream": True},
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=openai.Stream[ChatCompletionChunk],
        )
    for _ in stream:
        pass


def test_a_plain_stream_class_is_checked_too(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    provider.change = lambda response: evil(response, field=True)
    raw = provider.client(verifier=asked).chat.completions.with_raw_response.create(**asking(provider), stream=True)
    with pytest.raises(RejectedResponse):
        list(raw.parse(to=openai.Stream[ChatCompletionChunk]))


def test_a_stream_that_was_asked_for_by_extra_body(asked: Asked) -> None:
    provider = LyingProvider("greedy")
    client = provider.client(verifier=asked)
    with only_own_errors():
        client.chat.completions.create(**{**asking(provider), "extra_body": {"stream": True}})
    assert client.checks.accepted == 0


def test_what_others_wrote_moves_no_cursor(caplog: pytest.LogCaptureFixture) -> None:
    escape = "\x1b]0;owned\x07"
    provider = LyingProvider("greedy")

    def refuse(_: bytes) -> Report:
        raise RuntimeError(escape)

    client = provider.client(verifier=refuse, on_undecided="warn")
    chat(client, provider)
    provider.change = lambda response: response.update(id=escape, model=escape, choices=[{"index": escape}])
    with pytest.raises(RejectedResponse) as raised:
        chat(provider.client(verifier=lambda _: ACCEPTED), provider)
    for text in (caplog.text, str(raised.value)):
        assert "owned" in text
        assert "\x1b" not in text
        assert "\x07" not in text


def test_a_client_that_checks_nothing_is_the_sdk() -> None:
    """It follows, delivers and raises as the SDK does."""
    provider = LyingProvider("greedy")
    provider.change, provider.redirect = evil, 307
    client = provider.client()
    assert chat(client, provider).choices[0].message.content == EVIL
    assert client.checks == type(client.checks)()
    provider.content = b"{"
    with pytest.raises(json.JSONDecodeError):
        chat(client, provider)
    assert isinstance(provider, httpx2.BaseTransport)


def test_a_reply_that_a_transport_has_read_already(asked: Asked) -> None:
    """As caches give them."""
    provider = LyingProvider("greedy")
    provider.fresh = True

    class Cache(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            reply = provider.handle_request(request)
            return httpx2.Response(200, headers=reply.headers, content=reply.read())

    with httpx2.Client(transport=Cache()) as http:
        client = provider.client(verifier=asked, on_undecided="warn").with_options(http_client=http)
        for stream in (False, True):
            list(chat(client, provider, stream=stream))
        provider.change = lambda response: evil(response, field=True)
        for stream in (False, True):
            with pytest.raises(RejectedResponse):
                list(chat(client, provider, stream=stream))


@pytest.mark.parametrize("when", ["soon", "after its proofs"])
def test_a_reader_of_a_stream_that_is_cancelled(asked: Asked, when: str) -> None:
    """As a server cancels the work for a client that went: it is one that leaves."""
    provider = LyingProvider("greedy")
    arrived = asyncio.Event()

    class Stuck(httpx2.AsyncByteStream):
        def __init__(self, parts: list[bytes]) -> None:
            self._parts = parts

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self._parts:
                yield part
            arrived.set()
            await asyncio.Event().wait()

    async def run() -> None:
        async with provider.async_client(verifier=asked) as client:
            honest = provider.handle_request

            async def stuck(request: httpx2.Request) -> httpx2.Response:
                reply = honest(httpx2.Request(request.method, request.url, content=await request.aread()))
                parts = [*reply.stream]  # type: ignore[misc]
                kept = parts[:3] if when == "soon" else [part for part in parts if b"[DONE]" not in part]
                return httpx2.Response(200, headers=reply.headers, stream=Stuck(kept))

            provider.handle_async_request = stuck  # type: ignore[method-assign]
            create = client.chat.completions.with_streaming_response.create

            async def read() -> None:
                async with create(**asking(provider), stream=True) as reply:
                    async for _ in reply.iter_bytes():
                        pass

            reading = asyncio.ensure_future(read())
            await arrived.wait()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            await asyncio.to_thread(client.flush_checks, 60)
            assert (client.checks.accepted, client.checks.unchecked) == ((0, 1) if when == "soon" else (1, 0))

    asyncio.run(run())
