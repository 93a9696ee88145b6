"""Answers whose field was lost on the way: it is fetched from the server, and checked as if it had come with them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from lying_provider import LyingProvider
from openai import Stream
from toploc_client import MissingProofs, RejectedResponse, ToplocError, UnacceptedResponse, kept
from toploc_client.options import Options
from toploc_client.synchronous import kept as fetching

from toploc.protocol import ToplocProofs
from toploc.receipts.keys import SigningKey
from toploc.report import REQUIRED, Check, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc.verifier.transformers import TransformersVerifier

ACCEPTED = Report.of([Check(name=name, status="passed", message="fine") for name in REQUIRED])  # type: ignore[arg-type]


class Asked:
    """A verifier that remembers what it was asked."""

    def __init__(self, verify: Callable[[bytes], Report] = lambda _: ACCEPTED) -> None:
        self.evidence: list[dict[str, Any]] = []
        self._verify = verify

    def verify(self, evidence: bytes) -> Report:
        self.evidence.append(json.loads(evidence))
        return self._verify(evidence)


def lossy(name: str = "greedy") -> LyingProvider:
    """Honest, behind a proxy that drops fields it does not know."""
    provider = LyingProvider(name)
    provider.fresh = provider.keeps = True
    provider.change = drop
    return provider


def drop(response: dict[str, Any]) -> None:
    response.pop("toploc_proofs", None)


def chat(client: Any, provider: LyingProvider, **more: Any) -> Any:
    extra = {name: value for name, value in provider.request.items() if name not in ("model", "messages")}
    extra |= more.pop("extra_body", {})
    named = {name: provider.request[name] for name in ("model", "messages")}
    return client.chat.completions.create(**named, extra_body=extra, **more)


def read(client: Any, provider: LyingProvider, stream: bool, **more: Any) -> Iterator[Any]:
    """What the application has of an answer, as it comes."""
    answer = chat(client, provider, stream=stream, **more)
    yield from answer if stream else [answer]


def post(client: Any, provider: LyingProvider, stream: bool) -> Any:
    """The recorded request, to its own route."""
    body = {**provider.request, **({"stream": True} if stream else {})}
    path = provider.path.removeprefix("/v1")
    return client.post(path, body=body, cast_to=object, stream=stream, stream_cls=Stream[object])


def said(stream: Any) -> str:
    return "".join(event.choices[0].delta.content or "" for event in stream if event.choices)


def test_it_is_fetched_however_the_answer_is_read(mini: TransformersVerifier) -> None:
    asked, provider = Asked(mini.verify), lossy()
    client = provider.client(verifier=asked)
    text = provider.honest["choices"][0]["message"]["content"]
    completion = chat(client, provider)
    assert completion.toploc_proofs == ToplocProofs.model_validate(provider.field)
    assert completion.to_dict()["toploc_proofs"]
    stream = chat(client, provider, stream=True)
    assert said(stream) == text
    assert stream.toploc_proofs.choices == completion.toploc_proofs.choices
    with client.chat.completions.stream(model="toploc-mini", messages=provider.request["messages"]) as helper:
        assert helper.get_final_completion().toploc_proofs is not None
    with client.chat.completions.with_streaming_response.create(
        model="toploc-mini", messages=provider.request["messages"]
    ) as reply:
        assert json.loads(reply.read())["choices"][0]["message"]["content"] == text
    assert provider.looked_up == [f"/v1/toploc/proofs/{provider.honest['id']}-{n}" for n in range(1, 5)]
    assert (client.checks.fetched, client.checks.accepted, client.checks.unchecked) == (4, 4, 0)
    assert all(one["response"]["toploc_proofs"] == provider.field for one in asked.evidence)
    assert client.verify(completion).accepted
    assert len(provider.looked_up) == 4


ROUTES = ["response-items", "message-thinking", "completion-many"]


@pytest.mark.parametrize(
    ("name", "stream"), [(name, stream) for name in ROUTES for stream in (False, True)] + [("batch-sampled", False)]
)
def test_of_every_route(name: str, stream: bool) -> None:
    provider, asked = lossy(name), Asked()
    client = provider.client(verifier=asked)
    assert list(post(client, provider, stream))
    assert (client.checks.fetched, client.checks.accepted) == (1, 1)
    field = asked.evidence[0]["response"]["toploc_proofs"]
    assert ToplocProofs.model_validate(field) == ToplocProofs.model_validate(provider.field)


def test_asynchronously() -> None:
    async def run() -> None:
        provider = lossy()
        async with provider.async_client(verifier=Asked()) as client:
            completion = await chat(client, provider)
            assert completion.toploc_proofs.choices
            stream = await chat(client, provider, stream=True)
            assert [event async for event in stream]
            assert stream.toploc_proofs.choices
            lost = {**provider.honest, "id": completion.id}
            drop(lost)
            assert (await client.verify(provider.request, lost)).accepted
            assert (client.checks.fetched, client.checks.accepted) == (3, 2)
            provider.keeps = False
            with pytest.raises(MissingProofs):
                await chat(client, provider)

    asyncio.run(run())


def test_an_object_of_a_framework_that_lost_it() -> None:
    provider, asked = LyingProvider("greedy"), Asked()
    provider.keeps = True
    client = provider.client(verifier=asked)
    completion = chat(client, provider)
    lost = completion.model_dump(mode="json", exclude={"toploc_proofs"}, exclude_unset=True)
    assert client.verify(provider.request, lost).accepted
    assert asked.evidence[1]["response"] == asked.evidence[0]["response"]
    asked.evidence.clear()
    assert client.with_options(fetch_proofs=False).verify(provider.request, lost).accepted
    assert "toploc_proofs" not in asked.evidence[0]["response"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", ["another text", "another answer's", "of other tokens", "none of version 1"])
def test_what_is_fetched_is_held_against_the_answer(mini: TransformersVerifier, lie: str, stream: bool) -> None:
    provider = lossy()
    match lie:
        case "another text":

            def change(response: dict[str, Any]) -> None:
                drop(response)
                response["choices"][0]["message"]["content"] = "Transfer all of it."

            provider.change = change
        case "another answer's":
            field = LyingProvider("other-system").field
            provider.kept = lambda reply: {**reply, "toploc_proofs": field}
        case "of other tokens":
            provider.kept = lambda reply: reply["toploc_proofs"]["choices"][0]["token_ids"].reverse()
        case "none of version 1":
            provider.kept = lambda reply: {**reply, "toploc_proofs": {"version": 2}}
    client = provider.client(verifier=mini.verify)
    events: list[Any] = []
    with pytest.raises(UnacceptedResponse):
        events += read(client, provider, stream)
    assert client.checks.accepted == 0
    assert len(provider.looked_up) == 1
    assert not any(event.choices[0].finish_reason for event in events)


def elsewhere(reply: dict[str, Any]) -> httpx2.Response:
    return httpx2.Response(302, headers={"location": f"/v1/toploc/proofs/{reply['id']}"})


REPLIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a redirect": elsewhere,
    "of another id": lambda reply: reply.update(id="chatcmpl-other"),
    "without an id": lambda reply: reply.pop("id") and None,
    "without the field": lambda reply: reply.pop("toploc_proofs") and None,
    "a list": lambda reply: [reply],
    "no JSON": lambda _: httpx2.Response(200, content=b"\xff{"),
    "nested": lambda _: httpx2.Response(200, content=b"[" * 100_000),
    "an error": lambda _: httpx2.Response(500, json={"error": {"message": "down"}}),
    "too long": lambda _: httpx2.Response(200, content=b" " * 3000),
    "nothing": lambda _: httpx2.Response(200, content=b""),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", REPLIES)
def test_replies_that_are_none(kind: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer stays one without proofs, and nobody is asked about it."""
    provider, asked = lossy(), Asked()
    provider.kept = REPLIES[kind]
    if kind == "too long":
        monkeypatch.setattr(kept, "MAX_BYTES", 2000)
    client = provider.client(verifier=asked)
    events: list[Any] = []
    with pytest.raises(MissingProofs, match="by the answer's id") as raised:
        events += read(client, provider, stream)
    assert not asked.evidence
    assert len(provider.looked_up) == 1
    assert client.checks.fetched == 0
    assert not any(event.choices[0].finish_reason for event in events)
    assert str(raised.value).isprintable()


def test_a_reply_a_byte_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SECONDS", -1.0)
    monkeypatch.setattr(fetching, "options", lambda: {"headers": {"X-Stainless-Raw-Response": "stream"}})
    provider = lossy()
    with pytest.raises(MissingProofs, match="took longer"):
        chat(provider.client(verifier=Asked()), provider)


@pytest.mark.parametrize("name", ["../files/x", "a/b", "a?b", "a.b", "", "x" * 201, None, 7, ["a"]])
def test_ids_that_are_not_asked_for(name: Any) -> None:
    """Else a server chose what its client's key is used for."""
    provider = lossy()
    provider.fresh = False

    def change(response: dict[str, Any]) -> None:
        drop(response)
        response["id"] = name

    provider.change = change
    with pytest.raises(UnacceptedResponse):
        chat(provider.client(verifier=Asked()), provider)
    assert not provider.looked_up


def test_a_reason_in_place_of_proofs() -> None:
    provider = lossy()
    error = {"code": "capture_slots_exhausted", "message": "full"}
    field = {"dtype": "bfloat16", "model": "toploc-mini", "error": error}
    provider.kept = lambda reply: {**reply, "toploc_proofs": field}
    with pytest.raises(MissingProofs) as raised:
        chat(provider.client(verifier=Asked()), provider)
    assert raised.value.code == "capture_slots_exhausted"


UNASKED = ["told so", "no proofs wanted", "not required", "it is there"]


@pytest.mark.parametrize(
    ("why", "stream"), [(why, stream) for why in UNASKED for stream in (False, True)] + [("broken off", True)]
)
def test_when_nobody_is_asked(why: str, stream: bool) -> None:
    provider = lossy()
    options: dict[str, Any] = {"verifier": Asked()}
    more: dict[str, Any] = {}
    match why:
        case "told so":
            options["fetch_proofs"] = False
        case "no proofs wanted":
            more["extra_body"] = {"toploc": {"enabled": False}}
        case "not required":
            options["require_proofs"] = False
        case "broken off":
            provider.done = False
            provider.events = lambda events: events[:-2]
        case "it is there":
            provider.change = lambda _: None
    client = provider.client(**options)
    try:
        list(read(client, provider, stream, **more))
    except MissingProofs:
        assert why not in ("not required", "it is there")
    else:
        assert why in ("not required", "it is there")
    assert not provider.looked_up


def test_only_for_the_field(tmp_path: Any) -> None:
    """Without a verifier, where it is asked for; with trusted keys, which refuse an answer without a receipt."""
    provider = lossy()
    assert chat(provider.client(fetch_proofs=True), provider).toploc_proofs.choices
    key = SigningKey.create(tmp_path / "key.pem").public
    with pytest.raises(RejectedResponse, match="receipt"):
        chat(provider.client(trusted_keys=[key]), provider)
    assert len(provider.looked_up) == 2
    assert not hasattr(chat(provider.client(), provider), "toploc_proofs")
    assert len(provider.looked_up) == 2
    with pytest.raises(ToplocError, match="fetch_proofs: expected True, False or None"):
        Options(fetch_proofs="yes")  # type: ignore[arg-type]


def test_what_ends_a_choice_waits_with_all_that_follow(mini: TransformersVerifier) -> None:
    """Text goes by as it comes; nothing of the end is seen before the check, whose proofs are kept by then."""
    provider = lossy("completion-many")
    seen: list[int] = []

    def verify(evidence: bytes) -> Report:
        seen.append(len(events))
        return mini.verify(evidence)

    client = provider.client(verifier=verify)
    events: list[Any] = []
    events += post(client, provider, stream=True)
    assert client.checks.accepted == 1
    ended = [place for place, event in enumerate(events) if event["choices"] and event["choices"][0]["finish_reason"]]
    assert seen == [ended[0]]
    assert len(ended) == len(provider.honest["choices"])
