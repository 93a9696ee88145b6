"""`make demo MODEL=smollm2`: a real chat model, and two copies under its name that a reader could not tell from it.

Fetches SmolLM2-135M-Instruct where it is not yet (93 MB), serves it, and streams its answer as it is written. Hugging
Face transformers, which shares no code with the server, checks the answer. Then the same with a copy in 4 bits and with
one whose weights are rounded to 8.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai
from toploc_proxy.local_server import LocalServer
from transformers.utils.logging import disable_progress_bar

from toploc.evidence.assembly import Assembly
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.transformers import TransformersVerifier

sys.path.append(str(Path(__file__).resolve().parents[1]))
from models import alter, fetch

MODELS = {"smollm2": "smollm2-135m-instruct"}
QUESTION = "Why is the sky blue, and why is a sunset red?"
COPIES = {"int4": "a copy in 4 bits", "fp8": "a copy whose weights are rounded to fp8"}
TOKENS = 160


def main(model: str) -> None:
    # Ended from outside, the server has to be ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    disable_progress_bar()
    try:
        name, folder = MODELS[model], fetch.fetch(MODELS[model])
    except KeyError:
        sys.exit(f"MODEL: {model!r} is not one of {', '.join(MODELS)}")
    except fetch.Unavailable as error:
        sys.exit(f"models: {error}")
    print(f"Loading {name} for the independent check …", flush=True)
    verifier = TransformersVerifier(folder, names=[name], thresholds=Thresholds.load(name))
    verdicts = [show(f"An honest server of {name}", name, folder, verifier)]
    for kind, what in COPIES.items():
        with tempfile.TemporaryDirectory() as made:
            copy = alter.make(kind, folder, Path(made) / name)
            verdicts.append(show(f"A server that runs {what} and calls it {name}", name, copy, verifier))
    sys.exit(0 if verdicts == ["accepted", "rejected", "rejected"] else 1)


def show(title: str, name: str, folder: Path, verifier: TransformersVerifier) -> str:
    """Serves the model, asks, prints the answer as it comes, and the report; the verdict."""
    print(f"\n=== {title}\n$ toploc serve {name}  ", end="", flush=True)
    began = time.monotonic()
    options = ["--served-model-name", name, "--enforce-eager", "--max-model-len", "2048"]
    with LocalServer([str(folder), *options], progress=True) as server:
        print(f" ready after {time.monotonic() - began:.0f} s\nquestion  {QUESTION}\nanswer    ", end="", flush=True)
        request, response = ask(server.url, name)
    [choice] = response["toploc_proofs"]["choices"]
    print(f"\nproofs    {len(choice.get('proofs', ()))} for {len(choice['token_ids'])} tokens")
    report = verifier.verify(json.dumps({"request": request, "response": response}))
    print(f"verdict   {report.verdict.upper()} by a transformers prefill of {name}")
    for check in report.checks:
        print(f"  {check.name:<9} {check.status:<9} {check.message}")
    return report.verdict


def ask(url: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request, and the response that the stream's events add up to."""
    request: dict[str, Any] = {
        "model": name,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
    }
    assembly = Assembly()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for event in client.chat.completions.create(**request):
            assembly.add(event.to_dict())
            print(event.choices[0].delta.content or "" if event.choices else "", end="", flush=True)
    return request, assembly.response() or {}


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
