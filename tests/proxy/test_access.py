"""What our routes give away to those without a key, and to those who want to know more than they should."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import State
from starlette.routing import Route
from states import server
from toploc_proxy.engines.vllm.rehearsal import Rehearsal
from toploc_proxy.engines.vllm.serve.command import make_parser
from toploc_proxy.engines.vllm.serve.plugins import plugin_allow_list
from toploc_proxy.receipts.signing import Signer
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, Page, Role, Settings
from toploc_proxy.stores.proofs import SqliteProofs
from toploc_proxy.stores.receipts import MemoryStore, SqliteStore
from toploc_proxy.verify.limits import Places
from toploc_proxy.verify.recent import Verifications
from vllm.entrypoints.launchers.app import build_app

from toploc.errors import MalformedEvidence
from toploc.receipts.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
SECRET = "s" * 64
# What no client is to read: paths, tracebacks, addresses, names of exceptions, and secrets.
INTERNAL = re.compile(rf"/(?:\w+/)+\w|Traceback|\.py\b|0x[0-9a-f]{{6}}|\w+(?:Error|Exception)\(|sqlite|{SECRET}", re.I)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Verifier:
    """Fails as it is told; its places are real."""

    def __init__(self, places: Places, error: Exception | None = None) -> None:
        self.places = places
        self.recent = Verifications(Settings(channel="/nowhere", page=Page.NONE))  # a stream of events has no end
        self._error = error

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        return work()

    async def parse(self, _: object) -> Any:
        if self._error is not None:
            raise self._error


def application(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, role: Role = Role.PROVER, verifier: Any = None, signer: Any = None
) -> FastAPI:
    """vLLM's own application with our plugin, as vLLM loads it."""
    ours = Settings(channel="/tmp/toploc-secret", secret=SECRET, role=role, verify_body_bytes=2000)
    with monkeypatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", plugin_allow_list(None))
        patch.setenv(ENVIRONMENT_VARIABLE, ours.model_dump_json())
        app: FastAPI = build_app(make_parser()[1].parse_args(["serve", "model", *arguments]), ("generate",))
    verifier = verifier or Verifier(Places(1, 100, 2000), MalformedEvidence("request", "missing"))
    app.state.toploc = server(settings=ours, signer=signer, verifier=verifier)
    return app


def ask(app: FastAPI, *calls: tuple[str, str, bytes | None], **headers: str) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
            return [await client.request(method, path, content=body) for method, path, body in calls]

    return asyncio.run(run())


# The key


def our_paths(app: FastAPI) -> list[str]:
    paths = [route.path for route in app.routes if isinstance(route, Route) and "toploc" in route.path]
    assert len(paths) == 8
    return [path.replace("{response_id}", "chatcmpl-1") for path in paths]


@pytest.mark.parametrize("root", ["", "/api"])
def test_every_route_of_ours_needs_the_key(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    app = application(monkeypatch, "--api-key", "right", *(["--root-path", root] if root else []))
    paths = [prefix + path + end for path in our_paths(app) for prefix in {"", root} for end in ("", "/", "?x=1")]
    calls = [(method, path, b"{}" if method == "POST" else None) for path in paths for method in METHODS]
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}, {"authorization": "Bearer "}):
        for call, response in zip(calls, ask(app, *calls, **wrong), strict=True):
            assert response.status_code == 401, (call, response.text)
    statuses = {response.status_code for response in ask(app, *calls, authorization="Bearer right")}
    assert {400, 404, 405} <= statuses
    assert 401 not in statuses


# Errors


def assert_refused(response: httpx.Response, status: int) -> None:
    """An error of OpenAI's format that says nothing of the server's inside."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["error"]
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"]
    # Its own path a client knows.
    assert INTERNAL.search(response.text.replace(response.request.url.path, "")) is None, response.text


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vllm.toploc")


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError(2, "No such file", "/srv/models/secret/model.safetensors"), 500),
        (RuntimeError(f'Traceback: File "/usr/lib/x.py", line 1, in f {SECRET}'), 500),
        (sqlite3.OperationalError("unable to open /var/lib/toploc/receipts.db"), 500),
        (ValueError("<Tensor at 0x7f00deadbeef>"), 500),
        (RecursionError("in /root/x.py"), 500),
        (TimeoutError("/x/y/z"), 500),
        (MalformedEvidence("request.model", "expected text"), 400),
    ],
)
def test_a_verification_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, status: int) -> None:
    app = application(monkeypatch, verifier=Verifier(Places(1, 100, 2000), error))
    one, many = ask(app, *(("POST", "/v1/toploc/verify", body) for body in (b"{}", b'{"items":[{},{}]}')))
    assert_refused(one, status)
    lines = many.text.splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["error", "index"]] * 2
    assert INTERNAL.search(many.text) is None


@pytest.mark.usefixtures("_quiet")
def test_refusals_of_every_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    verify = "/v1/toploc/verify"
    broken = SqliteStore(str(tmp_path / "receipts.db"))
    broken._database._thread.submit(broken._database._connection.execute, "DROP TABLE receipts").result()
    lost = SqliteProofs(str(tmp_path / "proofs.db"))
    lost._database._thread.submit(lost._database._connection.execute, "DROP TABLE proofs").result()
    plain, full = application(monkeypatch), application(monkeypatch, verifier=Verifier(Places(0, 100, 2000)))
    signing = application(monkeypatch, signer=Signer(KEY, (KEY.public,), MemoryStore()))
    failing = application(monkeypatch, signer=Signer(KEY, (KEY.public,), broken))
    without = application(monkeypatch)
    without.state.toploc = server(proofs=lost)
    verifying = application(monkeypatch, role=Role.VERIFIER)
    cases: list[tuple[FastAPI, tuple[str, str, bytes | None], int]] = [
        (plain, ("POST", verify, b"{"), 400),
        (plain, ("POST", verify, b'{"items":1}'), 400),
        (plain, ("POST", verify, b" " * 3000), 413),
        (full, ("POST", verify, b"{}"), 429),
        (plain, ("GET", "/v1/toploc/receipts/x", None), 404),
        (signing, ("GET", "/v1/toploc/receipts/x", None), 404),
        (failing, ("GET", "/v1/toploc/receipts/x", None), 503),
        (plain, ("GET", "/v1/toploc/proofs/x", None), 404),
        (without, ("GET", "/v1/toploc/proofs/x", None), 503),
        (verifying, ("POST", "/v1/chat/completions", b"{}"), 404),
        (plain, ("POST", "/v1/chat/completions", b'{"toploc":{"file":"/etc/passwd"}}'), 400),
    ]
    for app, call, status in cases:
        [response] = ask(app, call)
        assert_refused(response, status)


@pytest.fixture(scope="module")
def signing() -> Iterator[FastAPI]:
    with pytest.MonkeyPatch.context() as patch:
        yield application(patch, signer=Signer(KEY, (KEY.public,), MemoryStore()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1) | st.sampled_from(["..", "' OR 1 --"]))
def test_ids_of_any_kind_find_nothing(signing: FastAPI, response_id: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in response_id.encode())
    for kind in ("receipts", "proofs"):
        [response] = ask(signing, ("GET", f"/v1/toploc/{kind}/{quoted}", None))
        assert_refused(response, 404)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/srv/models/secret/chat_template.jinja"),
        ValueError("<Template at 0x7f00deadbeef>"),
        KeyError('File "/usr/lib/python3/x.py", line 7, in render'),
    ],
)
def test_why_a_prompt_cannot_be_rendered(error: Exception) -> None:
    """Templates and processors of vLLM's raise what they like."""

    async def fail(*_: Any) -> Any:
        raise error

    serving = SimpleNamespace(create_chat_completion=fail)
    names = ("input_processor", "renderer", "model_config", "get_supported_tasks")
    config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=512))
    engine: Any = SimpleNamespace(vllm_config=config, **dict.fromkeys(names))
    rehearsal = Rehearsal(State({"openai_serving_chat": serving}), engine)
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

    async def score(*_: Any) -> None:
        raise AssertionError("nothing was asked of the engine")

    performance = asyncio.run(rehearsal.perform("chat", request, [], score, []))
    assert (performance.response, performance.prompts) == (None, [])
    assert performance.problem
    assert INTERNAL.search(performance.problem) is None, performance.problem
