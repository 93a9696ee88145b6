"""How the servers of these tests are started, and asked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Self

import httpx

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "models" / "toploc-mini"
NAME = "toploc-mini"
COMMAND = [sys.executable, "-m", "toploc", "sglang"]
SERVE = [
    *["--model-path", str(MODEL), "--served-model-name", NAME, "--device", "cpu"],
    *["--attention-backend", "torch_native", "--sampling-backend", "pytorch"],
    *["--max-total-tokens", "16384", "--max-running-requests", "16"],
    # A scheduler that waits would else take a core.
    "--sleep-on-idle",
]
ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    # Stand-ins for what no package has for processors.
    "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE / "standins"), os.environ.get("PYTHONPATH")))),
}


class Api:
    """JSON requests to a server of the bundled model, by any number of threads."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, **body: Any) -> Any:
        response = self.http.post(path, json={"model": NAME, **body})
        assert response.status_code == 200, response.text
        return response.json()

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The JSON of every event."""
        response = self.http.post(path, json={"model": NAME, "stream": True, **body})
        assert response.status_code == 200, response.text
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    def report(self, request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
        """The server's own report on a request and its response."""
        reply = self.http.post("/v1/toploc/verify", json={"request": request, "response": response})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def metric(self, name: str) -> float:
        """A counter or gauge, summed over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert values, f"no metric {name}"
        return sum(values)
