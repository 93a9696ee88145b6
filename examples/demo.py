"""`make demo`: a served answer with its proofs, and what an independent computation says of them.

Serves the bundled model and asks it a question, checks the answer's proofs with Hugging Face transformers, which shares
no code with the server; then does the same with a server that runs a 4-bit copy under the same name.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from base64 import b64decode
from pathlib import Path

import openai
from toploc_proxy.local_server import LocalServer
from transformers.utils.logging import disable_progress_bar

from toploc.proofs.verdict import verify_activations
from toploc.protocol import ToplocProofs, token_ids_sha256
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "toploc-mini"
NAME = "toploc-mini"
QUESTION = [{"role": "user", "content": "Count from 1 to 40."}]


def main() -> None:
    # Ended from outside, the server has to be ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    disable_progress_bar()
    print(f"Loading {NAME} for the independent check …", flush=True)
    prefill = TransformersPrefill(MODEL)
    accepted = show(f"An honest server of {NAME}", MODEL, prefill)
    with tempfile.TemporaryDirectory() as folder:
        sys.path.append(str(ROOT))
        from models import alter

        copy = alter.make("int4", MODEL, Path(folder) / NAME)
        rejected = not show(f"A server that runs a 4-bit copy and calls it {NAME}", copy, prefill)
    print("\nThe same with a real chat model, from a download of 93 MB: make demo MODEL=smollm2")
    sys.exit(0 if accepted and rejected else 1)


def show(title: str, model: Path, prefill: TransformersPrefill) -> bool:
    """Serves the model, asks, checks, prints; whether the answer was accepted."""
    print(f"\n=== {title}\n$ toploc serve {model.name}  ", end="", flush=True)
    began = time.monotonic()
    with LocalServer(
        [str(model), "--served-model-name", NAME, "--enforce-eager", "--max-model-len", "1024"], progress=True
    ) as server:
        print(f" ready after {time.monotonic() - began:.0f} s")
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        response = client.chat.completions.create(model=NAME, messages=QUESTION, temperature=0)
    proofs = ToplocProofs.model_validate(response.toploc_proofs)
    if proofs.choices is None or proofs.prompt is None or proofs.choices[0].proofs is None:
        print(f"no proofs: {proofs.error}")
        return False
    [choice] = proofs.choices
    sizes = [len(b64decode(proof)) for proof in choice.proofs]
    print(f"question  {QUESTION[0]['content']}")
    print(f"answer    {response.choices[0].message.content}")
    print(f"proofs    {len(sizes)} for {len(choice.token_ids)} tokens, {sum(sizes)} bytes: {choice.proofs[0][:32]}…")

    prompt = prefill.render(QUESTION)
    if proofs.prompt.sha256 != token_ids_sha256(prompt):
        print("verdict   REJECTED: the server answered another prompt")
        return False
    states = prefill.hidden_states(prompt, choice.token_ids)
    verdict = verify_activations(choice.proofs, states, thresholds=Thresholds.load(NAME))
    for number, chunk in enumerate(verdict.chunks):
        bounds = chunk.bounds
        print(
            f"chunk {number}   mismatches {chunk.mismatches} (at most {bounds.mismatches}), "
            f"mantissa mean {chunk.mantissa_mean:.2f} ({bounds.mantissa_mean:g}), "
            f"median {chunk.mantissa_median:g} ({bounds.mantissa_median:g}), "
            f"decoys {chunk.decoy_hits} ({bounds.decoy_hits})"
            f"  {'ok' if chunk.passed else ', '.join(chunk.reasons)}"
        )
    print(f"verdict   {'ACCEPTED' if verdict.passed else 'REJECTED'} by a transformers prefill of {NAME}")
    return verdict.passed


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
