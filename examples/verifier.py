"""A third party's verifier: an HTTP service of its own, with the weights, `toploc` and transformers, and no vLLM.

    python examples/verifier.py models/toploc-mini --name toploc-mini --thresholds toploc-mini --port 9000
    toploc verify tests/toploc/evidence/greedy.json --verifier http://localhost:9000

It speaks the verify protocol (docs/protocol.md) for one item a request, so every client of `toploc serve` can ask it.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from toploc.errors import MalformedEvidence
from toploc.evidence import MAX_BYTES, parse_evidence
from toploc.thresholds import Thresholds
from toploc.transformers_verifier import TransformersVerifier


def handler(verifier: TransformersVerifier) -> type[BaseHTTPRequestHandler]:
    one_at_a_time = Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # for a client that sends nothing

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if self.path != "/v1/toploc/verify":
                self.answer(404, '{"error": {"message": "no such route"}}')
            elif not length.isdecimal() or int(length[:20]) > MAX_BYTES:
                self.answer(413, '{"error": {"message": "too large"}}')
            else:
                self.verify(self.rfile.read(int(length)))

        def verify(self, data: bytes) -> None:
            try:
                evidence = parse_evidence(data, verifier.prefill.sampling_defaults)
            except MalformedEvidence as error:
                # Malformed evidence is the client's mistake; a malformed proof is in the report.
                self.answer(400, json.dumps({"error": {"message": str(error), "param": error.field}}))
                return
            with one_at_a_time:
                report = verifier.judge(evidence)
            self.answer(200, report.model_dump_json())

        def answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", help="the model is served under (default: its path)")
    parser.add_argument("--thresholds", help="a name or a file (default: the paper's)")
    parser.add_argument("--port", type=int, default=9000)
    args = parser.parse_args()
    thresholds = Thresholds.load(args.thresholds) if args.thresholds else None
    verifier = TransformersVerifier(args.model, names=[args.name] if args.name else [], thresholds=thresholds)
    with ThreadingHTTPServer(("127.0.0.1", args.port), handler(verifier)) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
