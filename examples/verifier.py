"""A third party's verifier: an HTTP service of its own, with the weights, `toploc` and transformers, and no vLLM.

    python examples/verifier.py models/toploc-mini --name toploc-mini --thresholds toploc-mini --port 9000
    toploc verify tests/toploc/evidence/greedy.json --verifier http://localhost:9000

It speaks the verify protocol (docs/protocol.md) for one item a request, so every client of `toploc serve` can ask it.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from toploc.errors import MalformedEvidence
from toploc.evidence.parse import parse_evidence
from toploc.evidence.strict_json import MAX_BYTES
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.transformers import TransformersVerifier

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("--name", required=True, help="the model is served under")
parser.add_argument("--thresholds", help="a name or a file (default: the paper's)")
parser.add_argument("--port", type=int, default=9000)
args = parser.parse_args()
thresholds = Thresholds.load(args.thresholds) if args.thresholds else None
verifier, one_at_a_time = TransformersVerifier(args.model, names=[args.name], thresholds=thresholds), Lock()


class Handler(BaseHTTPRequestHandler):
    timeout = 60  # for a client that sends nothing

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self.path != "/v1/toploc/verify":
            self.answer(404, {"error": {"message": "no such route"}})
        elif not length.isdecimal() or int(length[:20]) > MAX_BYTES:
            self.answer(413, {"error": {"message": "too large"}})
        else:
            try:
                evidence = parse_evidence(self.rfile.read(int(length)), verifier.prefill.sampling_defaults)
                with one_at_a_time:
                    self.answer(200, verifier.judge(evidence).model_dump())
            except MalformedEvidence as error:  # a malformed proof is in the report
                self.answer(400, {"error": {"message": str(error), "param": error.field}})

    def answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with ThreadingHTTPServer(("127.0.0.1", args.port), Handler) as server:
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
