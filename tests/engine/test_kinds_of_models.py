"""Models of other dtypes and architectures, such that generate nothing, and servers without a tokenizer."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from random_models import gemma, nemotron_h, save

from toploc.errors import VerifierUnavailable
from toploc.proofs.verdict import verify_activations
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.server import Verifier
from toploc.verifier.transformers import TransformersVerifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api
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


GENERATE = "/inference/v1/generate"
# What vLLM serves them with. Tokens go in and come out, so that no server needs a tokenizer.
ARCHITECTURES = {
    "sliding window": (gemma, ["--skip-tokenizer-init", "--enable-scale-out"]),
    "hybrid": (nemotron_h, ["--tokens-only", "--no-enable-prefix-caching"]),
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_on_servers_without_a_tokenizer(
    launch: Callable[..., LocalServer],
    api_of: type[Api],
    verified: Callable[..., ToplocProofs],
    tmp_path: Path,
    kind: str,
) -> None:
    make, options = ARCHITECTURES[kind]
    model = save(make(), tmp_path / "model")
    engine, thresholds = TransformersPrefill(model), Thresholds.paper("bfloat16")
    hold = partial(verified, engine=engine, thresholds=thresholds)
    with launch(*options, model=model) as server, api_of(server.url) as api:
        for number in range(4):
            prompt = Random(number).sample(range(8, 4000), 90)
            params = {"temperature": number % 2, "ignore_eos": True, "max_tokens": 70 + number, "seed": 7}
            body: dict[str, Any] = {"token_ids": prompt, "sampling_params": params}
            answer = api.post(GENERATE, **body)
            [choice] = hold(answer["toploc_proofs"], prompt).choices or ()
            assert list(choice.token_ids) == answer["choices"][0]["token_ids"]
            assert len(choice.token_ids) == 70 + number
        others = [engine.hidden_states(prompt, [*choice.token_ids, 8])[1:]]
        if kind == "sliding window":
            others.append(without_window(model, tmp_path / "other").hidden_states(prompt, choice.token_ids))
        for states in others:
            assert not verify_activations(choice.proofs or (), states, thresholds=thresholds).passed
        streamed = [event["toploc_proofs"] for event in api.stream(GENERATE, **body) if "toploc_proofs" in event]
        assert [len(hold(field, prompt).choices or ()) for field in streamed] == [1]
        cannot_verify(api, server, answer)


def without_window(model: Path, folder: Path) -> TransformersPrefill:
    """The same weights, all of whose layers see all positions."""
    shutil.copytree(model, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"sliding_window": 32', '"sliding_window": 4096'))
    return TransformersPrefill(folder)


def cannot_verify(api: Api, server: LocalServer, answer: dict[str, Any]) -> None:
    """Proofs need no tokenizer, and verification does; the server says so."""
    described = api.http.get("/v1/toploc").json()
    assert described["models"] == ["toploc-mini"]
    assert not described.keys() & {"thresholds", "response", "limits"}
    reply = api.http.post("/v1/toploc/verify", json={"request": {}, "response": answer})
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "no_tokenizer")
    with closing(Verifier(server.url)) as verifier, pytest.raises(VerifierUnavailable, match="without a tokenizer"):
        verifier.verify({"request": {}, "response": answer})
