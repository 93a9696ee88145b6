"""What goes through: bytes as they came, on any route, with the keys of whom they go to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from lying_provider import LyingProvider
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from parties import Provider, Running


def test_an_honest_answer_is_accepted_and_comes_byte_for_byte(
    start: Callable[..., Running], provider: Provider
) -> None:
    gateway = start(provider)
    provider.lying.fresh = False
    reply = gateway.ask(provider)
    assert reply.status_code == 200, reply.text
    assert reply.content == json.dumps(provider.lying.honest).encode()
    assert reply.headers["toploc-verdict"] == "accepted"
    assert reply.headers["toploc-upstream"] == "one"
    [(method, path, headers, body)] = provider.requests
    assert (method, path, json.loads(body)) == ("POST", "/v1/chat/completions", provider.lying.request)
    assert headers["authorization"] == "Bearer key-of-one"
    report = gateway.report(reply)
    assert report["verdict"] == report["report"]["verdict"] == "accepted"
    assert (report["upstream"], report["model"]) == ("one", "toploc-mini")
    evidence = gateway.http.get(f"/toploc/reports/{reply.headers['toploc-report']}/evidence").json()
    assert evidence["response"] == provider.lying.honest


@pytest.mark.parametrize("when", ["inline", "background"])
def test_a_stream_comes_byte_for_byte(start: Callable[..., Running], provider: Provider, when: str) -> None:
    gateway = start(provider, policy={"when": when})
    provider.lying.fresh = False
    direct = httpx.post(f"{provider.url}/v1/chat/completions", json={**provider.lying.request, "stream": True})
    reply = gateway.ask(provider, stream=True)
    assert reply.content == direct.content
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["toploc-verdict"] == {"inline": "accepted", "background": "pending"}[when]
    gateway.eventually(lambda: gateway.report(reply)["verdict"] == "accepted")


def echo(_: object) -> Response:
    return Response(b"\x00\x01 not JSON \xff", 207, {"x-own": "yes", "content-type": "application/x-thing"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/v1/files/a%20b?limit=3&after=x%26y"),
        ("PUT", "/unknown/route?q"),
        ("DELETE", "/v1/responses/resp_1"),
        ("PATCH", "/v1/vector_stores/1"),
        ("OPTIONS", "/v1/chat/completions"),
        ("POST", "/v1/audio/speech"),
    ],
)
def test_any_route_passes(start: Callable[..., Running], provider: Provider, method: str, path: str) -> None:
    provider.other = echo
    gateway = start(provider, policy={"on_missing": "warn"})
    body = None if method in ("GET", "DELETE", "OPTIONS") else bytes(range(256)) * 40
    reply = gateway.http.request(method, path, content=body, headers={"x-theirs": "1", "content-type": "a/b"})
    assert (reply.status_code, reply.content) == (207, b"\x00\x01 not JSON \xff")
    assert (reply.headers["x-own"], reply.headers["content-type"]) == ("yes", "application/x-thing")
    [(asked, target, headers, came)] = provider.requests
    assert (asked, target, headers["x-theirs"], came) == (method, path, "1", body or b"")


def test_a_large_upload_is_not_held(start: Callable[..., Running], provider: Provider) -> None:
    """It is larger than any body that is read here, and goes on as it comes."""
    provider.other = lambda _: Response(b"{}")
    gateway = start(provider, limits={"body_bytes": 1000})
    part = bytes(100_000)
    reply = gateway.http.post("/v1/files", content=(part for _ in range(50)))
    assert reply.status_code == 200
    assert provider.requests[0][3] == part * 50


def test_headers_of_one_connection_end_there(start: Callable[..., Running], provider: Provider) -> None:
    provider.other = lambda _: Response(
        b"{}",
        headers={"connection": "x-secret", "x-secret": "1", "keep-alive": "9", "set-cookie": "a=b", "x-ours": "1"},
    )
    gateway = start(provider)
    own = {"connection": "x-hop, keep-alive", "x-hop": "1", "te": "trailers", "x-forwarded-for": "1.2.3.4", "x-on": "1"}
    reply = gateway.http.get("/v1/files", headers=own)
    assert {"x-secret", "keep-alive", "set-cookie"}.isdisjoint(reply.headers)
    assert reply.headers["x-ours"] == "1"
    headers = provider.requests[0][2]
    assert {"x-hop", "te", "x-forwarded-for", "cookie"}.isdisjoint(headers)
    assert headers["x-on"] == "1"
    gateway.http.get("/v1/files")
    assert "cookie" not in provider.requests[1][2]


def test_a_compressed_reply_that_nobody_checks_passes(start: Callable[..., Running], provider: Provider) -> None:
    import gzip

    packed = gzip.compress(b'{"object": "list"}')
    provider.other = lambda _: Response(packed, headers={"content-encoding": "gzip"})
    gateway = start(provider)
    with gateway.http.stream("GET", "/v1/files") as reply:
        assert b"".join(reply.iter_raw()) == packed
    assert provider.requests[0][2]["accept-encoding"] == gateway.http.headers["accept-encoding"]


def test_an_upstreams_error_passes(start: Callable[..., Running], provider: Provider) -> None:
    provider.other = lambda _: Response(b'{"error": {"message": "no"}}', 422, {"x-reason": "own"})
    reply = start(provider).ask(provider)
    assert (reply.status_code, reply.content, reply.headers["x-reason"]) == (
        422,
        b'{"error": {"message": "no"}}',
        "own",
    )
    assert "toploc-verdict" not in reply.headers


def test_the_gateways_key_stays_here(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, api_keys=["s3cret", "other"])
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}, {"authorization": "s3cre"}):
        refused = gateway.http.post("/v1/chat/completions", json=provider.lying.request, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        for page in ("metrics", "upstreams", "reports/1"):
            assert gateway.http.get(f"/toploc/{page}", headers=headers).status_code == 401
    assert gateway.http.get("/toploc/health").status_code == 200
    assert provider.requests == []
    for headers in ({"authorization": "Bearer s3cret"}, {"x-api-key": "other"}):
        reply = gateway.http.post("/v1/chat/completions", json=provider.lying.request, headers=headers)
        assert reply.status_code == 200
        sent = provider.requests[-1][2]
        assert sent["authorization"] == "Bearer key-of-one"
        assert sent.get("x-api-key") == ("key-of-one" if "x-api-key" in headers else None)


def test_a_seed_is_asked_for_and_nothing_else_changes(start: Callable[..., Running], provider: Provider) -> None:
    provider.lying.sampler = "splitmix64"
    gateway = start(provider, policy={"quarantine": {"after": []}})
    body = json.dumps({**provider.lying.request, "temperature": 1.0}, indent=1).encode() + b"\n"
    reply = gateway.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    sent = provider.requests[0][3]
    seed = json.loads(sent)["seed"]
    assert sent == body.rstrip()[:-2].rstrip() + f', "seed": {seed}'.encode() + b"}\n"
    report = reply.headers["toploc-report"]
    assert gateway.http.get(f"/toploc/reports/{report}/evidence").json()["request"]["seed"] == seed
    gateway.ask(provider, temperature=1.0, seed=None)
    assert json.loads(provider.requests[1][3])["seed"] is not None
    gateway.ask(provider, temperature=1.0, seed=7)
    assert json.loads(provider.requests[2][3])["seed"] == 7


def test_a_server_without_a_sampler_gets_no_seed(start: Callable[..., Running], provider: Provider) -> None:
    start(provider).ask(provider, temperature=1.0)
    assert "seed" not in json.loads(provider.requests[0][3])


def test_proofs_are_asked_for(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider, upstream={"proofs": "asked"}, policy={"quarantine": {"after": []}})
    gateway.ask(provider)
    gateway.ask(provider, toploc={"prompt_token_ids": True})
    gateway.ask(provider, toploc={"enabled": False})
    asked = [json.loads(body)["toploc"] for *_, body in provider.requests]
    assert asked == [{"enabled": True}, {"enabled": True, "prompt_token_ids": True}, {"enabled": False}]


def test_an_upstream_without_proofs(start: Callable[..., Running], provider: Provider) -> None:
    """Without verifiers nothing is read, nor asked for."""
    gateway = start(provider, upstream={"proofs": "none", "verifiers": []})
    provider.lying.change = lambda response: response.pop("toploc_proofs") and None
    for stream in (False, True):
        reply = gateway.ask(provider, stream=stream, temperature=1)
        assert reply.status_code == 200
        assert "toploc-verdict" not in reply.headers
    assert "seed" not in json.loads(provider.requests[0][3])


@pytest.mark.parametrize("when", ["inline", "background"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_field_is_stripped(start: Callable[..., Running], provider: Provider, when: str, stream: bool) -> None:
    gateway = start(provider, field="strip", policy={"when": when})
    provider.lying.fresh = False
    direct = httpx.post(f"{provider.url}/v1/chat/completions", json={**provider.lying.request, "stream": stream})
    reply = gateway.ask(provider, stream=stream)
    assert b"toploc_proofs" in direct.content
    assert b"toploc_proofs" not in reply.content
    lines = zip(direct.content.splitlines(), reply.content.splitlines(), strict=True)
    for before, after in lines:
        if b"toploc_proofs" not in before:
            assert before == after
        else:
            held = json.loads(before.removeprefix(b"data: "))
            assert held.pop("toploc_proofs")
            assert json.loads(after.removeprefix(b"data: ")) == held
    gateway.eventually(lambda: gateway.report(reply)["verdict"] == "accepted")


def test_models_of_several_upstreams(start: Callable[..., Running], provider: Provider, other: Provider) -> None:
    provider.other = other.other = lambda _: Response(b'{"object": "list", "data": []}')
    gateway = start(provider, other)
    [model] = gateway.http.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"]) == ("toploc-mini", "one")
    assert gateway.http.get("/v1/models", headers={"toploc-upstream": "two"}).json()["data"] == []
    assert len(other.requests) == 1
    assert "toploc-upstream" not in other.requests[0][2]
    unknown = gateway.http.get("/v1/models", headers={"toploc-upstream": "four"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "unknown_upstream")
    missing = gateway.http.post("/v1/chat/completions", json={"model": "gpt-9", "messages": []})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "model")
    assert missing.json()["error"]["code"] == "model_not_found"


def test_a_response_is_fetched_where_it_was_made(
    start: Callable[..., Running], provider: Provider, other: Provider
) -> None:
    """Of two upstreams the second made it, since the first was away at the time."""
    for made in (provider, other):
        made.lying = LyingProvider("response-items")
    gateway = start(provider, other, policy={"on_undecided": "warn"})
    gateway.http.post("/toploc/upstreams/one/quarantine")
    reply = gateway.ask(provider)
    assert reply.headers["toploc-upstream"] == "two", reply.text
    gateway.http.post("/toploc/upstreams/one/return")
    fetched = gateway.http.get(f"/v1/responses/{reply.json()['id']}")
    assert fetched.headers["toploc-upstream"] == "two"
    assert fetched.headers["toploc-verdict"] == reply.headers["toploc-verdict"]
