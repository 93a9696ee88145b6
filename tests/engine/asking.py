"""Requests to a server of the bundled model, whatever its engine, and its proofs held against another engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from options import NAME

from toploc.evidence.assembly import Assembly
from toploc.proofs.verdict import verify_activations
from toploc.protocol import ToplocProofs, num_chunks, token_ids_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toploc.thresholds.bounds import Thresholds
    from toploc.verifier.prefill import TransformersPrefill

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"


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

    def chat(self, messages: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
        return self.post("/v1/chat/completions", messages=messages, **body)

    def report(self, response: dict[str, Any], **body: Any) -> dict[str, Any]:
        """The server's own report on a request and its response."""
        reply = self.http.post("/v1/toploc/verify", json={"request": {"model": NAME, **body}, "response": response})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The JSON of every event."""
        response = self.http.post(path, json={"model": NAME, "stream": True, **body})
        assert response.status_code == 200, response.text
        lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    def assembled(self, path: str, **body: Any) -> dict[str, Any]:
        """A stream as it is put together, with its last field, which is that of all choices."""
        assembly, events = Assembly(), self.stream(path, **body)
        for event in events:
            assembly.add(event)
        response = assembly.response()
        assert response is not None
        fields = [event.get("toploc_proofs") or event.get("response", {}).get("toploc_proofs") for event in events]
        return {**response, "toploc_proofs": [field for field in fields if field][-1]}

    def metric(self, name: str) -> float:
        """A counter or gauge, summed over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert values, f"no metric {name}"
        return sum(values)


def hold(
    field: dict[str, Any],
    *prompts: Sequence[Any],
    engine: TransformersPrefill,
    thresholds: Thresholds,
    **template: Any,
) -> ToplocProofs:
    """Holds every chunk of a `toploc_proofs` field against the prefill of its prompt, and gives the field back.

    As many choices belong to each prompt; a prompt is a list of messages or of token ids.
    """
    proofs = ToplocProofs.model_validate(field)
    assert proofs.choices, proofs.error
    for place, choice in enumerate(proofs.choices):
        assert choice.error is None, choice.error
        prompt = prompts[place * len(prompts) // len(proofs.choices)]
        if not isinstance(prompt[0], int):
            prompt = engine.render(prompt, **template)
        digest = choice.prompt or proofs.prompt
        assert digest.sha256 == token_ids_sha256(prompt)
        assert len(choice.proofs) == num_chunks(len(choice.token_ids)) > 0
        states = engine.hidden_states(prompt, choice.token_ids)
        verdict = verify_activations(choice.proofs, states, thresholds=thresholds)
        assert verdict.passed, verdict.chunks
    return proofs
