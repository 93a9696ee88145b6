"""What changes while a server runs: its weights, and responses that are fetched later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from asking import MODEL, Api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc_proxy.local_server import LocalServer

pytestmark = pytest.mark.sglang_all

ASKED = [{"role": "user", "content": "Tell me a story."}]
RESPONSE = {"input": "Tell me a story.", "max_output_tokens": 40}


@pytest.fixture(scope="module")
def storing(launch: Callable[..., LocalServer]) -> Iterator[Api]:
    with launch("--enable-response-store") as server, Api(server.url) as api:
        yield api


def test_a_response_is_fetched_with_the_field_that_it_had(storing: Api, verified: Callable[..., Any]) -> None:
    made = storing.post("/v1/responses", **RESPONSE, store=True)
    verified(made["toploc_proofs"], ASKED)
    fetched = storing.http.get(f"/v1/responses/{made['id']}").json()
    assert fetched["toploc_proofs"] == made["toploc_proofs"]


def test_a_response_in_the_background(storing: Api, verified: Callable[..., Any]) -> None:
    made = storing.post("/v1/responses", **RESPONSE, store=True, background=True)
    assert "toploc_proofs" not in made
    for _ in range(120):
        fetched = storing.http.get(f"/v1/responses/{made['id']}").json()
        if fetched["status"] == "completed":
            break
        time.sleep(0.5)
    verified(fetched["toploc_proofs"], ASKED)


def test_weights_that_are_loaded_again_are_counted(storing: Api, verified: Callable[..., Any]) -> None:
    assert storing.http.get("/v1/toploc").json()["weights"]["version"] == 0
    loaded = storing.http.post("/update_weights_from_disk", json={"model_path": str(MODEL)})
    assert loaded.json()["success"], loaded.text
    answer = storing.post("/v1/chat/completions", messages=ASKED, max_tokens=40)
    [choice] = verified(answer["toploc_proofs"], ASKED).choices
    assert choice.weights is not None
    assert [(span.version, span.start, span.end) for span in choice.weights] == [(1, 0, len(choice.token_ids))]
    said = storing.http.get("/v1/toploc").json()["weights"]
    assert said["version"] == 1
    assert "sha256" not in said
