"""What breaks: nothing is lost that an application has, and nothing is delivered that the policy forbids."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from lying_provider import EVIL
from parties import Process, config_of
from toploc_gateway.stores.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from parties import Provider, Running, Served, VerifierApp

    Full = Callable[[Running, bool], None]

FOREVER = {"quarantine": {"after": []}}


def lies(response: dict[str, Any]) -> None:
    response["choices"][0]["message"]["content"] = EVIL


def verdicts(path: Path) -> dict[str, int]:
    """As the file has them, whoever writes it."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return dict(connection.execute("SELECT verdict, COUNT(*) FROM toploc_answers GROUP BY verdict"))


def test_an_upstream_dies_in_the_middle_of_a_stream(start: Callable[..., Running], provider: Provider) -> None:
    """In the background its events went out already; what ends the stream is an error that SDKs raise."""
    import openai

    provider.breaks_after = 5
    gateway = start(provider, policy={"when": "background", **FOREVER})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        messages = provider.lying.request["messages"]
        stream = client.chat.completions.create(model="toploc-mini", messages=messages, stream=True)
        with pytest.raises(openai.APIError, match="did not come to its end"):
            list(stream)
    labels = {"upstream": "one", "model": "toploc-mini", "verdict": "unchecked"}
    gateway.eventually(lambda: gateway.metric("toploc:gateway_answers_total", **labels) == 1)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("after", [2, 10_000])
def test_a_stream_that_the_application_leaves(start: Callable[..., Running], provider: Provider, after: int) -> None:
    """After its proofs came it is checked; before, it is counted."""
    gateway = start(provider, policy={"when": "background"})
    provider.pause = 0.01
    provider.lying.done = after == 2  # else the end is all that misses
    body = {**provider.lying.request, "stream": True}
    with gateway.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        for number, line in enumerate(reply.iter_lines()):
            if "toploc_proofs" in line or number == after:
                break
    verdict = "unchecked" if after == 2 else "accepted"
    labels = {"upstream": "one", "model": "toploc-mini", "verdict": verdict}
    gateway.eventually(lambda: gateway.metric("toploc:gateway_answers_total", **labels) == 1)


def test_answers_wait_for_their_verifier(
    start: Callable[..., Running], provider: Provider, verifier_app: VerifierApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is down when they are made, and one of them was a lie."""
    monkeypatch.setattr("toploc_gateway.auditor.RETRY", 0.2)
    verifier_app.down = True
    gateway = start(provider)
    for change in (lambda _: None, lies):
        provider.lying.change = change
        assert gateway.ask(provider).headers["toploc-verdict"] == "unavailable"
    assert gateway.upstream()["answers"] == {"toploc-mini": {"pending": 2}}
    gateway.eventually(lambda: gateway.metric("toploc:gateway_answers_pending") == 2)
    verifier_app.down = False
    gateway.eventually(lambda: gateway.upstream()["answers"] == {"toploc-mini": {"accepted": 1, "rejected": 1}})
    assert gateway.upstream()["state"] == "quarantined"


def test_a_disk_that_is_full(
    start: Callable[..., Running], provider: Provider, full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is delivered that cannot be stored; once that is known nothing is asked for; then all goes on."""
    gateway = start(provider)
    assert gateway.ask(provider).status_code == 200
    full(gateway, True)
    for stream in (False, True):
        refused = gateway.ask(provider, stream=stream)
        assert refused.json()["error"]["code"] in ("not_stored", "store_unavailable"), refused.text
    assert refused.status_code == 503
    asked = len(provider.requests)
    assert gateway.ask(provider).status_code == 503
    assert len(provider.requests) == asked
    health = gateway.http.get("/toploc/health")
    assert (health.status_code, health.json()["problems"]) == (503, ["store"])
    assert gateway.metric("toploc:gateway_store_errors_total") > 0
    full(gateway, False)
    gateway.eventually(lambda: gateway.http.get("/toploc/health").status_code == 200)
    assert gateway.ask(provider).status_code == 200
    assert "Traceback" not in caplog.text


def test_a_disk_that_fills_during_a_stream(start: Callable[..., Running], provider: Provider, full: Full) -> None:
    """Its last event waits for the store, and does not come."""
    gateway = start(provider, policy={"when": "background"})
    gateway.ask(provider)
    provider.gate = threading.Event()
    body = {**provider.lying.request, "stream": True}
    with gateway.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        full(gateway, True)
        provider.gate.set()
        said = "\n".join(lines)
    assert "[DONE]" not in said
    assert '"code": "not_stored"' in said


def test_what_cannot_be_stored_is_delivered_if_told(
    start: Callable[..., Running], provider: Provider, full: Full
) -> None:
    """And checked at once, since it cannot wait anywhere."""
    gateway = start(provider, store={"on_error": "warn"}, policy={"when": "background", **FOREVER})
    gateway.ask(provider)
    full(gateway, True)
    for stream in (False, True):
        assert gateway.ask(provider, stream=stream).status_code == 200
    provider.lying.change = lies
    gateway.ask(provider)
    labels = {"upstream": "one", "model": "toploc-mini"}
    gateway.eventually(lambda: gateway.metric("toploc:gateway_answers_total", **labels, verdict="accepted") == 3)
    gateway.eventually(lambda: gateway.metric("toploc:gateway_answers_total", **labels, verdict="rejected") == 1)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[Running, bool], None]:
    """SQLite's own limit on a file, which is an error like a full disk's: what it has already, and not a page more."""
    connect = Database._connect_sqlite
    state = {"full": False}

    def limited(database: Database) -> sqlite3.Connection:
        connection = connect(database)
        if not state["full"]:
            connection.execute("DROP TABLE IF EXISTS filler")
            return connection
        connection.execute("CREATE TABLE IF NOT EXISTS filler (content)")
        connection.execute("PRAGMA max_page_count=1")
        with suppress(sqlite3.OperationalError):
            while True:
                connection.execute("INSERT INTO filler VALUES (zeroblob(500))")
        return connection

    monkeypatch.setattr(Database, "_connect_sqlite", limited)

    def make(gateway: Running, is_full: bool) -> None:
        state["full"] = is_full
        database = gateway.gateway.database
        database._thread.submit(database._disconnect).result()

    return make


def test_restarts_lose_nothing(
    provider: Provider, verifier: Served, verifier_app: VerifierApp, tmp_path: Path, free_port: int
) -> None:
    """Killed while answers wait for their checks; then told to stop while a stream is under way."""
    verifier_app.down = True
    parts = {"port": free_port, "policy": {"when": "background", **FOREVER}, "timeouts": {"stop": 10}}
    config = config_of(tmp_path, verifier.url, (provider,), {}, parts)
    database = tmp_path / "gateway.db"
    with Process(tmp_path, config) as first, ThreadPoolExecutor(8) as threads:
        bodies = [{**provider.lying.request, "stream": number % 2 == 0} for number in range(20)]
        replies = list(threads.map(lambda body: first.http.post("/v1/chat/completions", json=body), bodies))
        assert all(reply.status_code == 200 for reply in replies)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    assert verdicts(database) == {"pending": 20}
    with sqlite3.connect(database) as connection:  # as if the killed one had taken them fifteen minutes ago
        connection.execute("UPDATE toploc_answers SET claimed_until = 0")
    verifier_app.down = False
    with Process(tmp_path, config) as second:
        until = time.monotonic() + 30
        while verdicts(database) != {"accepted": 20}:
            assert time.monotonic() < until, verdicts(database)
            time.sleep(0.1)
        provider.gate = threading.Event()
        body = {**provider.lying.request, "stream": True}
        with second.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            second.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            provider.gate.set()
            assert "data: [DONE]" in list(lines)
        assert second.process.wait(20) == 0
    assert sum(verdicts(database).values()) == 21
    log = (tmp_path / "log").read_text().splitlines()
    assert "Traceback" not in "\n".join(log)
    lines_of_requests = [json.loads(line) for line in log if '"message": "request"' in line]
    assert {(line["status"], line["verdict"]) for line in lines_of_requests if line["method"] == "POST"} == {
        (200, "pending")
    }


@pytest.mark.parametrize("url", ["sqlite:{folder}/none/gateway.db", "postgresql://nobody@127.0.0.1:9/x"])
def test_a_store_that_is_none_ends_the_start(
    provider: Provider, verifier: Served, tmp_path: Path, free_port: int, url: str
) -> None:
    config = config_of(tmp_path, verifier.url, (provider,), {}, {"port": free_port})
    config["store"]["url"] = url.format(folder=tmp_path)
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-m", "toploc", "gateway", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "store: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_many_at_once_while_things_break(
    start: Callable[..., Running],
    provider: Provider,
    other: Provider,
    verifier_app: VerifierApp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Upstreams lie, prove nothing and break off, and the verifier goes and comes. No lie reaches an application, what
    reaches one was accepted, and all that was made is in the store with a verdict in the end."""
    monkeypatch.setattr("toploc_gateway.auditor.RETRY", 0.2)
    chance = random.Random(7)

    def misbehaves(response: dict[str, Any]) -> None:
        what = chance.random()
        if what < 0.3:
            lies(response)
        elif what < 0.4:
            response.pop("toploc_proofs")

    policy = {"on_rejected": "next", "on_missing": "next", "on_unavailable": "fail", "on_broken": "next", **FOREVER}
    gateway = start(provider, other, policy=policy)
    for made in (provider, other):
        made.lying.change = misbehaves
    over = threading.Event()

    def breaks() -> None:
        while not over.wait(0.1):
            verifier_app.down = chance.random() < 0.3
            for made in (provider, other):
                made.breaks_after = chance.choice([None, None, 0, 3])

    def ask(number: int) -> httpx.Response:
        return gateway.ask(provider, stream=number % 2 == 0)

    with ThreadPoolExecutor(9) as threads:
        breaking = threads.submit(breaks)
        replies = list(threads.map(ask, range(96)))
        over.set()
        breaking.result()
    verifier_app.down = False
    assert not any(EVIL[:7] in reply.text for reply in replies)
    assert {reply.status_code for reply in replies} <= {200, 424}
    delivered = [reply for reply in replies if reply.status_code == 200]
    assert len(delivered) > 10
    assert {reply.headers["toploc-verdict"] for reply in delivered} == {"accepted"}
    for name in ("one", "two"):
        gateway.eventually(lambda name=name: "pending" not in gateway.upstream(name)["answers"].get("toploc-mini", {}))
    assert {gateway.report(reply)["verdict"] for reply in delivered} == {"accepted"}
    refused = [reply for reply in replies if "toploc-report" in reply.headers and reply.status_code == 424]
    assert {gateway.report(reply)["verdict"] for reply in refused} <= {"accepted", "rejected", "missing"}
    assert gateway.gateway.running == 0


def test_a_gateway_that_is_left_alone_asks_nobody(start: Callable[..., Running], provider: Provider) -> None:
    start(provider)
    time.sleep(0.3)
    assert provider.requests == []


def test_the_file_is_its_users_alone(start: Callable[..., Running], provider: Provider, tmp_path: Path) -> None:
    start(provider).ask(provider)
    assert (tmp_path / "gateway.db").stat().st_mode & 0o077 == 0
