"""Text of a verifier on the terminal of who asks it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from recorded import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

ESCAPES = "\x1b[2J\x1b]0;pwned\x07\u202e"


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize("command", ["verify", "audit"])
def test_no_command_prints_control_characters(tmp_path: Path, command: str, status: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _reply(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._reply(200, {"version": 1, "scheme": "toploc-gf65497", "model": ESCAPES})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._reply(status, {"error": {"message": ESCAPES, "param": ESCAPES}, "index": ESCAPES, "verdict": ESCAPES})

    file = tmp_path / "answers.jsonl"
    file.write_text(RECORDED["greedy"] + "\n", "utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        call = [command, str(file), "--verifier", f"http://127.0.0.1:{server.server_port}"]
        call += ["--out", str(tmp_path / "out"), "--wait", "1"] if command == "audit" else []
        done = subprocess.run([sys.executable, "-m", "toploc", *call], capture_output=True, text=True, check=False)
        server.shutdown()
    printed = done.stdout + done.stderr
    assert printed
    assert not {"\x1b", "\x07", "\u202e"} & set(printed)
