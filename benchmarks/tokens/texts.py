"""Answers of one length to many questions: by the bundled model, by altered copies, at other temperatures, by a person.

Each is 256 tokens long, whatever ends the model would have put: shorter answers are their beginnings.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
from toploc_proxy.local_server import LocalServer

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from models import alter  # noqa: E402
from models.corpus import exchange  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toploc.verifier.prefill import TransformersPrefill

NAME = "toploc-mini"
MODEL = ROOT / "models" / NAME
TOKENS = 256

REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "cool": {"temperature": 0.7},
    "sampled": {"temperature": 1},
    "hot": {"temperature": 1.5},
    "truncated": {"temperature": 0.8, "top_p": 0.9, "top_k": 20},
    "seeded": {"temperature": 1, "seed": 0},
}
"""What is asked for. Seeds are the questions' numbers."""

HONEST = "model"
PERSON = "person"

SERVED = {
    HONEST: (HONEST, 1.0),
    "int4": ("int4", 1.0),
    "int4-colder": ("int4", 0.6),
    "finetuned": ("finetuned", 1.0),
    "hotter": (HONEST, 1.3),
    "colder": (HONEST, 0.7),
    "greedily": (HONEST, 0.0),
}
"""By writer: the model or its altered copy, and what the temperature that was asked for is multiplied by; in place of
greedy decoding, the temperature."""

WRITERS = (*SERVED, PERSON)

SERVE = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]
AT_ONCE = 32


def request(kind: str, number: int) -> dict[str, Any]:
    """The body that an answer claims to answer."""
    options = dict(REQUESTS[kind])
    if "seed" in options:
        options["seed"] = number
    messages = [{"role": "user", "content": exchange(Random(number)).question}]
    return {"model": NAME, "messages": messages, "max_tokens": TOKENS, "ignore_eos": True, **options}


class Texts:
    """Token ids in the files of a folder, one for each kind and writer; what a file lacks is written on demand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, kind: str, writer: str) -> list[list[int]]:
        """One answer for each question, from number 0 on; the honest ones are of other numbers."""
        path = self._path(kind, writer)
        found: list[list[int]] = json.loads(path.read_text("utf-8")) if path.exists() else []
        return found

    def by_servers(self, counts: dict[tuple[str, str], Sequence[int]]) -> None:
        """Has answers written to questions of these numbers, by kind and writer: one server after another."""
        for model in dict.fromkeys(copy for copy, _ in SERVED.values()):
            writers = [writer for writer, (copy, _) in SERVED.items() if copy == model]
            missing = {
                (kind, writer): numbers[len(self.read(kind, writer)) :]
                for (kind, writer), numbers in counts.items()
                if writer in writers and len(self.read(kind, writer)) < len(numbers)
            }
            if not missing:
                continue
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                source = MODEL if model == HONEST else alter.make(model, MODEL, folder / model)
                server = stack.enter_context(LocalServer([str(source), *SERVE]))
                http = stack.enter_context(httpx.Client(base_url=server.url, timeout=600))
                threads = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
                for (kind, writer), numbers in missing.items():
                    for first in range(0, len(numbers), AT_ONCE):
                        batch = numbers[first : first + AT_ONCE]
                        self._add(kind, writer, threads.map(lambda n: ask(http, kind, writer, n), batch))  # noqa: B023
                    print(f"{kind} by {writer}: {len(numbers)} written", flush=True)

    def by_a_person(self, kind: str, numbers: Sequence[int], prefill: TransformersPrefill) -> None:
        """Passages of Python's reference manual, which comes with it."""
        manual = prefill.tokenizer("\n".join(topics[name] for name in sorted(topics)), verbose=False)["input_ids"]
        missing = numbers[len(self.read(kind, PERSON)) :]
        starts = [Random(f"{PERSON} {number}").randrange(len(manual) - TOKENS) for number in missing]
        self._add(kind, PERSON, (manual[start : start + TOKENS] for start in starts))

    def _add(self, kind: str, writer: str, answers: Any) -> None:
        self._path(kind, writer).write_text(json.dumps([*self.read(kind, writer), *answers]), "utf-8")

    def _path(self, kind: str, writer: str) -> Path:
        return self._folder / f"{kind}-{writer}.json"


def ask(http: httpx.Client, kind: str, writer: str, number: int) -> list[int]:
    """The tokens of a served answer."""
    body = request(kind, number)
    factor = SERVED[writer][1]
    if factor != 1:
        body["temperature"] = factor * (body["temperature"] or 1)
    response = http.post("/v1/chat/completions", json=body).raise_for_status().json()
    [choice] = response["toploc_proofs"]["choices"]
    token_ids: list[int] = choice["token_ids"]
    return token_ids
