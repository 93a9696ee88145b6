"""Evidence of the bundled model's answers, and of altered copies served under its name."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
from toploc_client import EvidenceFile
from toploc_proxy.experiment.generate import TAILS
from toploc_proxy.local_server import LocalServer

from . import alter
from .corpus import conversation, exchange

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "toploc-mini"
SOURCE = Path(__file__).parent / NAME
SERVE = ["--served-model-name", NAME, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]
AT_ONCE = 32
HONEST = "model"


def request(seed: int) -> tuple[str, dict[str, Any]]:
    """Route and body of a seeded request, greedy or at temperature 1, for 0 to 4 whole chunks and mostly a shorter one.

    Half ask a question, a quarter goes on with a conversation and a quarter with token ids drawn at random, since users
    ask more than the model was trained on, and states are noisier there.
    """
    rng = Random(seed)
    tail = rng.choice(TAILS)
    body = {
        "model": NAME,
        "max_tokens": 32 * rng.choice((0, 0, 1, 2, 4)) + rng.randint(*tail),
        "temperature": seed % 2,
        "ignore_eos": True,
    }
    kind = rng.randrange(4)
    if kind == 0:
        prompt = [rng.randrange(10, 900) for _ in range(rng.randint(1, 40))]
        return "/v1/completions", {**body, "prompt": prompt}
    messages = conversation(rng).messages[:-1] if kind == 1 else [{"role": "user", "content": exchange(rng).question}]
    return "/v1/chat/completions", {**body, "messages": messages}


def write(path: Path, kind: str, seeds: Sequence[int]) -> Path:
    """Evidence of `kind`, the model itself or one of `alter.KINDS`, as JSONL; an existing file is left as it is."""
    if path.exists():
        return path
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    file = EvidenceFile(part)
    with tempfile.TemporaryDirectory() as folder:
        model = SOURCE if kind == HONEST else alter.make(kind, SOURCE, Path(folder) / kind)
        with (
            LocalServer([str(model), *SERVE]) as server,
            httpx.Client(base_url=server.url, timeout=300) as http,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):

            def ask(seed: int) -> None:
                route, body = request(seed)
                response = http.post(route, json=body)
                response.raise_for_status()
                file.append(body, response.json())

            list(pool.map(ask, seeds))
    return part.rename(path)
