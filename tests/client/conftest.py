"""A verifier behind a server of its own, without an engine."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from recorded import ROOT

from toploc.engine import Facts
from toploc.pooling.spread import Spread
from toploc.thresholds.bounds import Thresholds
from toploc.thresholds.pooled import Copy, PooledBounds
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server(ThreadingHTTPServer):
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


# Of the recorded answers, roughly; the copy is what int4 does. Low, since only some dozen answers are audited here.
POOLED = PooledBounds(
    honest=Spread(-0.6, 0.15, 0.25),
    provenance="the recorded answers",
    engine=Facts(execution="eager"),
    copies={"int4": Copy(scores=Spread(2.0, 0.2, 0.25), threshold=6.0, audits=20)},
)


@pytest.fixture(scope="session")
def mini() -> TransformersVerifier:
    """The real verifier of the bundled model; it takes seconds to load."""
    thresholds = Thresholds.load("toploc-mini")
    return TransformersVerifier(
        TransformersPrefill(ROOT / "models" / "toploc-mini"), names=["toploc-mini"], thresholds=thresholds
    )


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serve(Thresholds.load("toploc-mini")) as served:
        yield served


@pytest.fixture(scope="session")
def pooling_server() -> Iterator[Server]:
    """With the paper's bounds on chunks, and figures for the test over answers."""
    with serve(replace(Thresholds.paper(), name="paper, pooled", pooled=POOLED)) as served:
        yield served


@contextmanager
def serve(thresholds: Thresholds) -> Iterator[Server]:
    verifier = TransformersVerifier(
        TransformersPrefill(ROOT / "models" / "toploc-mini"),
        names=["toploc-mini"],
        thresholds=thresholds,
        context_length=2048,
    )

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"scheme": "toploc-gf65497"}')

        def do_POST(self) -> None:
            items = json.loads(self.rfile.read(int(self.headers["content-length"])))["items"]
            self.send_response(200)
            self.end_headers()
            for index, item in enumerate(items):
                report = verifier.verify(json.dumps(item)).model_dump()
                served.asked += 1
                try:
                    self.wfile.write(json.dumps({"index": index, "report": report}).encode() + b"\n")
                except OSError:  # the audit was killed
                    return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.__class__ = Server
        served: Any = made
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield served
        made.shutdown()
        thread.join()
