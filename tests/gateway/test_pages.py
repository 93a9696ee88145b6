"""The gateway's own routes, its log, and proofs that are fetched by the answer's id."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from starlette.responses import JSONResponse
from toploc_gateway.log import JsonFormatter, TextFormatter, event

if TYPE_CHECKING:
    from collections.abc import Callable

    from parties import Provider, Running


def test_metrics(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    gateway.ask(provider)
    gateway.http.post("/v1/chat/completions", json={"model": "gpt-9"})
    text = gateway.http.get("/toploc/metrics").text
    for line in (
        'toploc:gateway_requests_total{model="toploc-mini",status="200",upstream="one"} 1.0',
        'toploc:gateway_answers_total{model="toploc-mini",upstream="one",verdict="accepted"} 1.0',
        'toploc:gateway_reply_seconds_count{model="toploc-mini",upstream="one"} 1.0',
        "toploc:gateway_requests_running 0.0",
    ):
        assert line in text
    assert "gpt-9" not in text  # whoever asks could make new ones without end


def test_what_there_is_not(start: Callable[..., Running], provider: Provider) -> None:
    gateway = start(provider)
    for path, code in (
        ("reports/none", "report_unknown"),
        ("reports/none/evidence", "report_unknown"),
        ("reports/%00%ff", "report_unknown"),
    ):
        reply = gateway.http.get(f"/toploc/{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, code)
    for path, code in (("none/return", "unknown_upstream"), ("one/praise", "unknown_state")):
        reply = gateway.http.post(f"/toploc/upstreams/{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, code)
    assert gateway.http.get("/toploc/none").status_code == 404
    assert provider.requests == []


def test_a_page_of_another_site(start: Callable[..., Running], provider: Provider) -> None:
    """Which a browser sends to a gateway that needs no key."""
    gateway = start(provider)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        reply = gateway.http.post("/toploc/upstreams/one/return", headers={"sec-fetch-site": site})
        assert reply.status_code == status
    assert gateway.http.get("/toploc", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to it


@pytest.mark.parametrize("stream", [False, True])
def test_proofs_that_were_lost_are_fetched(start: Callable[..., Running], provider: Provider, stream: bool) -> None:
    """As by a proxy before the provider, which drops the field."""
    field = provider.lying.field
    provider.lying.change = lambda response: response.pop("toploc_proofs") and None
    provider.kept = lambda name: JSONResponse({"id": name, "toploc_proofs": field})
    gateway = start(provider)
    reply = gateway.ask(provider, stream=stream)
    assert (reply.status_code, reply.headers["toploc-verdict"]) == (200, "accepted"), reply.text
    assert "toploc_proofs" not in reply.text
    assert [path for _, path, *_ in provider.requests][1].startswith("/v1/toploc/proofs/chatcmpl-")
    assert provider.requests[1][2]["authorization"] == "Bearer key-of-one"


def test_a_line_of_the_log_is_one_line() -> None:
    made = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            made.append((JsonFormatter().format(record), TextFormatter("%(message)s").format(record)))

    handler, logger = Handler(), logging.getLogger("toploc.gateway")
    logger.addHandler(handler)
    try:
        event(logging.ERROR, "what was said", why="a\nb\x1b[2J", nothing=None)
    finally:
        logger.removeHandler(handler)
    [(as_json, as_text)] = made
    said = json.loads(as_json)
    assert (said["level"], said["message"], said["why"]) == ("error", "what was said", "a\nb\x1b[2J")
    assert "nothing" not in said
    assert as_json.isprintable()
    assert as_text == "what was said why=a\\nb\\x1b[2J"
