"""Models of other dtypes, and such that generate nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
STORY = [{"role": "user", "content": "Tell me a story."}]

# Of the model; what its hidden states are proven as; the bounds.
DTYPES = {
    torch.float16: ("float16", None, "paper-float16"),
    # Rounded once, at the end, so that they differ less than those of a model that computes in bfloat16.
    torch.float32: ("bfloat16", "float32", "toploc-mini"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(
    launch: Callable[..., LocalServer], api_of: type[Api], verified: Callable[..., ToplocProofs], dtype: torch.dtype
) -> None:
    proven, rounded_from, bounds = DTYPES[dtype]
    engine, thresholds = TransformersPrefill(MODEL, dtype=dtype), Thresholds.load(bounds)
    verifier = TransformersVerifier(engine, names=["toploc-mini"], thresholds=thresholds)
    seeds = ["--toploc-seed-requests", "--no-enable-chunked-prefill"]
    with launch("--dtype", str(dtype).removeprefix("torch."), *seeds) as server, api_of(server.url) as api:
        for seed in range(4):
            body: dict[str, Any] = {"temperature": seed % 2, "ignore_eos": True, "max_tokens": 40 + 32 * seed}
            answer = api.chat(STORY, **body)
            request = {"model": "toploc-mini", "messages": STORY, **body}
            report = verifier.verify(json.dumps({"request": request, "response": answer}))
            [tokens] = [check for check in report.checks if check.name == "tokens"]
            assert (tokens.status, "replay_worst" in tokens.figures) == ("passed", seed % 2 == 1), str(report)
            field = answer["toploc_proofs"]
            proofs = verified(field, STORY, engine=engine, thresholds=thresholds)
            assert (proofs.dtype, proofs.rounded_from) == (proven, rounded_from)


def test_an_embedding_model_is_served_as_without_us(launch: Callable[..., LocalServer], api_of: type[Api]) -> None:
    with launch("--runner", "pooling", "--convert", "embed") as server, api_of(server.url) as api:
        response = api.post("/v1/embeddings", input=["one", "two"])
        assert [len(item["embedding"]) for item in response["data"]] == [256, 256]
        assert "toploc_proofs" not in response
        assert api.http.get("/v1/toploc").status_code == 404


def test_weights_quantised_as_they_load(
    launch: Callable[..., LocalServer], api_of: type[Api], verified: Callable[..., ToplocProofs]
) -> None:
    """8 bits are within the paper's bounds of the weights that they were made from; shifted rows would not be."""
    with launch("--quantization", "int8_per_channel_weight_only") as server, api_of(server.url) as api:
        for seed in range(4):
            body: dict[str, Any] = {"temperature": seed % 2, "ignore_eos": True, "max_tokens": 40 + 32 * seed}
            verified(api.chat(STORY, **body)["toploc_proofs"], STORY, thresholds=Thresholds.paper("bfloat16"))
