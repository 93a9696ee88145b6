"""`toploc vendors` of real servers: an honest one, an altered copy, and three that a proxy makes lie."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from toploc_client.vendors.command import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import openai
    from toploc_proxy.local_server import LocalServer

TOKENS = 40
SUMS = [(17, 25), (3, 4), (12, 30), (8, 9)]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}

Lie = "Callable[[dict[str, Any], dict[str, Any]], object]"


class LyingProxy(ThreadingHTTPServer):
    """Before a server; `asks` changes requests and `lies` responses, each in place."""

    upstream: str
    asks: Callable[[dict[str, Any]], object]
    lies: Callable[[dict[str, Any]], object]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: LyingProxy

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asks(body)
        reply = httpx.post(self.server.upstream + self.path, json=body, timeout=120)
        data = reply.content
        if not body.get("stream"):
            response = reply.json()
            self.server.lies(response)
            data = json.dumps(response).encode()
        self.send_response(reply.status_code)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(server: LocalServer) -> Iterator[Callable[..., str]]:
    made: list[LyingProxy] = []

    def before(
        asks: Callable[[dict[str, Any]], object] = lambda _: None,
        lies: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> str:
        one = LyingProxy(("127.0.0.1", 0), Handler)
        one.upstream, one.asks, one.lies = server.url, asks, lies
        threading.Thread(target=one.serve_forever, daemon=True).start()
        made.append(one)
        return one.url

    yield before
    for one in made:
        one.shutdown()
        one.server_close()


def compare(folder: Path, server: LocalServer, vendors: dict[str, str], **parts: Any) -> tuple[int, dict[str, Any]]:
    own = folder / "own.jsonl"
    prompts = [{"role": "user", "content": f"What is {a} + {b}?"} for a, b in SUMS]
    bodies = [{"messages": [one], "tools": [ADD], "temperature": 0, "max_tokens": 80} for one in prompts]
    own.write_text("\n".join(map(json.dumps, bodies)), "utf-8")
    config = {
        "vendors": [
            {"name": name, "url": url, "model": "toploc-mini", "logprobs": True} for name, url in vendors.items()
        ],
        "verifier": {"url": server.url},
        "requests": {"canaries": 8, "streamed": 2, "tools": 0, "tokens": TOKENS, "file": str(own)},
        **parts,
    }
    path = folder / "vendors.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    status = main([str(path), "--out", str(folder / "out"), "--seed", "tests"])
    rows = json.loads((folder / "out" / "comparison.json").read_text("utf-8"))["vendors"]
    return status, {row["vendor"]: row for row in rows}


def miscounts(response: dict[str, Any]) -> None:
    usage = response["usage"]
    usage["completion_tokens"] += usage["completion_tokens"] // 4
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def breaks_arguments(response: dict[str, Any]) -> None:
    for call in response["choices"][0]["message"].get("tool_calls") or ():
        call["function"]["arguments"] = call["function"]["arguments"][:-1]


def truncates(request: dict[str, Any]) -> None:
    request["max_tokens"] = min(request["max_tokens"], 10)


def test_an_honest_vendor_and_what_others_do(
    server: LocalServer, impostor: openai.OpenAI, proxy: Callable[..., str], tmp_path: Path
) -> None:
    vendors = {
        "honest": f"{server.url}/v1",
        "altered": str(impostor.base_url).rstrip("/"),
        "truncates": proxy(asks=truncates),
        "miscounts": proxy(lies=miscounts),
        "breaks": proxy(lies=breaks_arguments),
    }
    status, rows = compare(tmp_path, server, vendors)
    assert status == 1
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {"honest": "nothing found", **dict.fromkeys([*vendors][1:], "contradicted")}, rows
    honest = rows["honest"]
    assert (honest["answered"], honest["asked"]) == (14, 14)
    assert (honest["prompts_right"], honest["over"]) == (14, 0)
    assert (honest["streams"], honest["verdicts"].get("rejected", 0)) == (2, 0)
    assert honest["calls"] == honest["valid"] == len(SUMS)
    assert honest["tokens"]["tokens_known"]["logprobs"] >= 10
    assert rows["altered"]["verdicts"]["rejected"] >= 1
    assert rows["truncates"]["reasons"]["finish: cut_short"] >= 8
    assert rows["miscounts"]["over"] > 0.1
    assert rows["breaks"]["reasons"]["tools: json"] == len(SUMS)
    assert (rows["breaks"]["calls"], rows["breaks"]["valid"]) == (len(SUMS), 0)


def test_without_a_verifier_the_responses_alone_are_compared(
    server: LocalServer, proxy: Callable[..., str], tmp_path: Path
) -> None:
    vendors = {"honest": f"{server.url}/v1", "breaks": proxy(lies=breaks_arguments)}
    status, rows = compare(tmp_path, server, vendors, verifier=None)
    assert status == 1
    assert [rows[name]["verdict"] for name in vendors] == ["nothing found", "contradicted"]
    assert rows["honest"]["over"] is None
