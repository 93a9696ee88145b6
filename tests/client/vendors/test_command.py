"""`toploc vendors` of vendors that are no engine: what they are asked, what is kept, and what is written."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from toploc_client.vendors import asking
from toploc_client.vendors.command import main

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REQUESTS = {"canaries": 4, "streamed": 2, "tools": 3, "tokens": 8}


class Vendor(ThreadingHTTPServer):
    """Answers by a function of the request; `asked` has the bodies and the keys."""

    answer: Callable[[dict[str, Any]], Any]
    asked: list[tuple[str | None, dict[str, Any]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Vendor

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.headers.get("authorization"), body))
        said = self.server.answer(body)
        status, data = said if isinstance(said, tuple) else (200, said)
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.__class__ = Vendor
        made.asked = []
        made.answer = honest
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def honest(body: dict[str, Any]) -> Any:
    """The same words to every request, as a stream where one is asked for; a call where there are tools."""
    message: dict[str, Any] = {"role": "assistant", "content": "one two three"}
    reason = "stop"
    if "tools" in body:
        function = {"name": "get_weather", "arguments": '{"city": "X", "unit": "celsius"}'}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        }
        reason = "tool_calls"
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    made = {"id": "a", "object": "chat.completion", "model": "m", "usage": usage}
    if not body.get("stream"):
        return {**made, "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    chunk = {"id": "a", "object": "chat.completion.chunk", "model": "m"}
    events = [
        {
            **chunk,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "one two"}, "finish_reason": None}],
        },
        {**chunk, "choices": [{"index": 0, "delta": {"content": " three"}, "finish_reason": "stop"}]},
        {**chunk, "choices": [], "usage": usage},
    ]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def compare(folder: Path, *vendors: Vendor, **parts: Any) -> tuple[int, list[dict[str, Any]]]:
    listed = [
        {
            "name": f"v{place}",
            "url": one.url,
            "model": f"m{place}",
            "api_key": f"key {place}",
            **parts.pop("vendor", {}),
        }
        for place, one in enumerate(vendors)
    ]
    path = folder / "vendors.yaml"
    path.write_text(yaml.safe_dump({"vendors": listed, "requests": REQUESTS, **parts}))
    status = main([str(path), "--out", str(folder / "out"), "--seed", "s"])
    return status, json.loads((folder / "out" / "comparison.json").read_text("utf-8"))["vendors"]


def test_nothing_is_found_of_an_honest_vendor(
    vendor: Vendor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    price = {"price": {"input": 1.0, "output": 2.0}, "extra": {"provider": {"only": "x"}}}
    status, [row] = compare(tmp_path, vendor, vendor=price)
    assert (status, row["verdict"], row["answered"]) == (0, "nothing found", 9)
    assert (row["streams"], row["equal"], row["calls"], row["valid"]) == (2, 2, 3, 3)
    assert row["dollars"] == pytest.approx(9 * (9 * 1.0 + 4 * 2.0) / 1e6)
    assert {key for key, _ in vendor.asked} == {"Bearer key 0"}
    assert {(body["model"], body["provider"]["only"]) for _, body in vendor.asked} == {("m0", "x")}
    printed = capsys.readouterr().out
    assert "| v0 | nothing found | 9 of 9 |" in printed
    assert (tmp_path / "out" / "comparison.md").read_text("utf-8") == printed


def test_it_goes_on_where_it_was(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came is kept, also beside a line that a killed call left torn; what failed is asked again."""
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    vendor.answer = lambda body: (500, b"no") if "tools" in body else honest(body)
    status, [row] = compare(tmp_path, vendor)
    assert (status, row["answered"]) == (0, 6)
    assert "3 of 9 requests were not answered" in row["unsure"]
    kept = tmp_path / "out" / "v0" / "answers.jsonl"
    with kept.open("ab") as file:
        file.write(b'{"key": "can')
    vendor.answer, vendor.asked = honest, []
    status, [row] = compare(tmp_path, vendor)
    assert (row["answered"], len(vendor.asked)) == (9, 3)
    assert (kept.stat().st_mode & 0o077) == 0
    with pytest.raises(ToplocError, match="another --seed"):
        main([str(tmp_path / "vendors.yaml"), "--out", str(tmp_path / "out"), "--seed", "t"])


def test_when_tools_are_called_beside_the_others(vendor: Vendor, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as shy:
        shy.__class__ = Vendor
        shy.asked = []  # type: ignore[attr-defined]
        shy.answer = lambda body: honest({n: v for n, v in body.items() if n != "tools"})  # type: ignore[attr-defined]
        threading.Thread(target=shy.serve_forever, daemon=True).start()
        _, rows = compare(tmp_path, vendor, shy, vendor)  # type: ignore[arg-type]
        shy.shutdown()
    assert [row["f1"] for row in rows] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"choices": [{"message": {"content": "<script>alert(1)</script>"}, "finish_reason": "<b>"}]}',
        b'{"choices": 7, "usage": {"prompt_tokens": -1}}',
        b'{"choices": [{"message": {"tool_calls": [7, {"function": {"name": [], "arguments": "{"}}]}}]}',
        b"data: {\n\ndata: []\n\ndata: 7\n\n",
        b'data: {"object": "chat.completion.chunk", "choices": [{"index": "x", "delta": 7}]}\n\n',
    ],
)
def test_nothing_that_a_vendor_says_breaks_it(
    vendor: Vendor, tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    vendor.answer = lambda _: said
    status, [row] = compare(tmp_path, vendor)
    assert status in (1, 2)
    assert row["verdict"] in ("contradicted", "undecided")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "default-src 'none'; style-src 'sha256-" in page


def test_a_vendor_that_is_not_there(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    monkeypatch.setattr(asking, "MOST_BYTES", 100)
    status, [row] = compare(tmp_path, vendor)
    assert (status, row["verdict"], row["answered"]) == (2, "undecided", 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "vendors: is missing"),
        ({"vendors": []}, "vendors"),
        ({"vendors": [{"name": "a", "url": "x", "model": "m"}]}, r"vendors\[0\].url: expected http"),
        ({"vendors": [{"name": "../a", "url": "http://x", "model": "m"}]}, r"vendors\[0\].name"),
        ({"vendors": [{"name": "a", "url": "http://x", "model": "m"}] * 2}, "a name of its own"),
        ({"vendors": [{"name": "a", "url": "http://x", "model": "m", "key": 1}]}, "no such option"),
        ({"vendors": [{"name": "a", "url": "http://x", "model": "m"}], "reference": "b"}, "none of the vendors"),
        ({"vendors": [{"name": "a", "url": "http://x", "model": "m", "api_key": "${NO_KEY}"}]}, "has no NO_KEY"),
        ({"vendors": [{"name": "a", "url": "http://x", "model": "m"}], "sampling": [{"seed": 1}]}, "sampling"),
        ("- a", "expected names"),
        (
            {"vendors": [{"name": "a", "url": "http://x", "model": "m"}], "requests": {"canaries": 0, "tools": 0}},
            "nothing is to be asked",
        ),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, given: Any, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(given if isinstance(given, str) else yaml.safe_dump(given))
    with pytest.raises(ToplocError, match=said):
        main([str(path), "--out", str(tmp_path / "out")])


def test_the_example_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from recorded import ROOT
    from toploc_client.vendors.config import read_config

    keys = {f"{name}_KEY": "k" for name in ("FIRST", "SECOND", "AUDITOR")}
    assert [one.name for one in read_config(ROOT / "configs" / "vendors.yaml", keys).vendors] == ["first", "second"]
