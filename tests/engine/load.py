"""Requests of every kind to one server, some of them abandoned; what is delivered is verified by another engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import torch

from models import corpus
from toploc.proofs.verdict import verify_activations
from toploc.protocol import ChoiceProofs, ToplocProofs, num_chunks, token_ids_sha256
from toploc.thresholds.bounds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toploc.verifier.prefill import TransformersPrefill

TOOLS = list(corpus.TOOLS.values())
LENGTHS = [1, 4, 33, 64]
# Long enough that nobody who leaves has had the whole of it.
ABANDONED_LENGTH = 400
# One in so many goes to the server's own verifier too.
VERIFIED_BY_SERVER = 20
# Answers that wait for the prefill, and tokens of one, padding included: a small model's time goes into its calls.
WAITING = 256
PREFILL_TOKENS = 4096
# Answers of 31 tokens and more whose rows are shifted by one all fail them (docs/evidence.md).
PAPER = Thresholds.paper("bfloat16")


@dataclass(slots=True)
class Tally:
    """What became of the requests.

    Attributes:
        requests: by kind and outcome: `whole`, `streamed` or `left`.
        beyond_calibration: answers verified by the paper's bounds, and not by the model's own, which are narrower.
        verdicts: of the server on its own answers.
    """

    requests: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    proofs: int = 0
    beyond_calibration: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return sum(number for name, number in self.requests.items() if name.endswith("left"))

    @property
    def done(self) -> int:
        return self.requests.total()


def completion(random: Random, tokens: int) -> tuple[str, dict[str, Any]]:
    prompts = [
        [random.randrange(10, 900) for _ in range(random.randrange(1, 40))] for _ in range(random.choice([1, 1, 2]))
    ]
    n = random.choice([1, 1, 2])
    return "/v1/completions", {"prompt": prompts, "max_tokens": tokens, "n": n, "ignore_eos": True}


def chat(random: Random, tokens: int) -> tuple[str, dict[str, Any]]:
    extra = random.choice([{}, {"logprobs": True}, {"n": 2}, {"tools": TOOLS}, {"stop": ["a"]}])
    return "/v1/chat/completions", {"messages": question(random), "max_tokens": tokens, **extra}


def message(random: Random, tokens: int) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"messages": question(random), "max_tokens": tokens}


def response(random: Random, tokens: int) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": question(random), "max_output_tokens": tokens}


KINDS: list[Callable[[Random, int], tuple[str, dict[str, Any]]]] = [
    completion,
    completion,
    chat,
    chat,
    message,
    response,
]


def question(random: Random) -> list[dict[str, Any]]:
    return [{"role": "user", "content": corpus.exchange(random).question}]


class Load:
    """Args:
    leaving: share of the requests that are abandoned at a random moment.
    """

    def __init__(self, url: str, engine: TransformersPrefill, thresholds: Thresholds, leaving: float) -> None:
        self.tally = Tally()
        self._url = url
        self._engine = engine
        self._thresholds = thresholds
        self._leaving = leaving
        self._seeds = count()

    def run(self, requests: int, *, at_once: int = 16, seconds: float = float("inf")) -> None:
        """Raises AssertionError for an answer that is not proven, or whose proofs do not verify."""
        threads = torch.get_num_threads()
        # More would wait for the engine's, which are as many as there are cores.
        torch.set_num_threads(1)
        try:
            asyncio.run(self._run(requests, at_once, time.monotonic() + seconds))
        finally:
            torch.set_num_threads(threads)

    async def _run(self, requests: int, at_once: int, deadline: float) -> None:
        numbers = iter(range(requests))
        delivered: asyncio.Queue[list[dict[str, Any]] | None] = asyncio.Queue(WAITING)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        client = httpx.AsyncClient(base_url=self._url, timeout=300, limits=limits)
        async with client as http, asyncio.TaskGroup() as verifying:
            verifying.create_task(self._verify_all(delivered))
            async with asyncio.TaskGroup() as asking:
                for _ in range(at_once):
                    asking.create_task(self._ask(http, delivered, numbers, deadline))
            await delivered.put(None)

    async def _verify_all(self, delivered: asyncio.Queue[list[dict[str, Any]] | None]) -> None:
        """Everything that waits at once, until None comes."""
        loop = asyncio.get_running_loop()
        # One thread: a model is not to be shared.
        with ThreadPoolExecutor(1) as thread:
            ended = False
            while not ended:
                taken = [await delivered.get()]
                while not delivered.empty():
                    taken.append(delivered.get_nowait())
                ended = None in taken
                await loop.run_in_executor(thread, self._verify, [field for fields in taken for field in fields or ()])

    async def _ask(
        self,
        http: httpx.AsyncClient,
        delivered: asyncio.Queue[list[dict[str, Any]] | None],
        numbers: Iterator[int],
        deadline: float,
    ) -> None:
        for _ in numbers:
            if time.monotonic() > deadline:
                return
            random = Random(next(self._seeds))
            leave = random.random() < self._leaving
            kind = random.choice(KINDS)
            path, body = kind(random, ABANDONED_LENGTH if leave else random.choice(LENGTHS))
            stream = random.random() < 0.6
            # Greedy, there is one choice only.
            temperature = 1 if "n" in body else random.choice([0, 1])
            body |= {"model": "toploc-mini", "temperature": temperature, "stream": stream}
            body["toploc"] = {"prompt_token_ids": True}
            if leave:
                await abandon(http, path, body, random)
            else:
                answer = await http.post(path, json=body)
                assert answer.status_code == 200, answer.text
                documents = events(answer.text) if stream else [answer.json()]
                fields = [field for document in documents for field in fields_of(document)]
                assert fields, answer.text
                await delivered.put(fields)
                if not stream and random.randrange(VERIFIED_BY_SERVER) == 0:
                    await self._have_verified(http, body, documents[0])
            self.tally.requests[f"{kind.__name__} {'left' if leave else 'streamed' if stream else 'whole'}"] += 1

    def _verify(self, fields: list[dict[str, Any]]) -> None:
        claims = [claim for field in fields for claim in claims_of(field)]
        for batch in batches(claims):
            for (_, choice), states in zip(batch, prefilled(self._engine, batch), strict=True):
                verdict = verify_activations(choice.proofs, states, thresholds=self._thresholds)
                if not verdict.passed:
                    # Calibrated on sentences, and these prompts are noise: their tail goes beyond, though not far.
                    self.tally.beyond_calibration += 1
                    verdict = verify_activations(choice.proofs, states, thresholds=PAPER)
                assert verdict.passed, verdict.chunks
                self.tally.answers += 1
                self.tally.proofs += len(choice.proofs)

    async def _have_verified(self, http: httpx.AsyncClient, request: dict[str, Any], answer: dict[str, Any]) -> None:
        report = await http.post("/v1/toploc/verify", json={"request": request, "response": answer})
        assert report.status_code == 200, report.text
        verdict = report.json()["verdict"]
        assert verdict in ("accepted", "rejected"), report.text
        self.tally.verdicts[verdict] += 1


Claim = tuple[Sequence[int], ChoiceProofs]
"""A choice after its prompt."""


def claims_of(field: dict[str, Any]) -> Iterator[Claim]:
    """Raises AssertionError for a field that does not prove each of its choices."""
    proofs = ToplocProofs.model_validate(field)
    assert proofs.choices, proofs.error
    for choice in proofs.choices:
        assert choice.error is None, choice.error
        digest = choice.prompt or proofs.prompt
        assert digest is not None
        assert digest.token_ids is not None
        assert token_ids_sha256(digest.token_ids) == digest.sha256
        assert choice.proofs is not None
        assert len(choice.proofs) == num_chunks(len(choice.token_ids)) > 0
        yield digest.token_ids, choice


def batches(claims: Iterable[Claim]) -> Iterator[list[Claim]]:
    """Claims of about the same length."""
    batch: list[Claim] = []
    for claim in sorted(claims, key=length):
        if batch and (len(batch) + 1) * length(claim) > PREFILL_TOKENS:
            yield batch
            batch = []
        batch.append(claim)
    if batch:
        yield batch


def length(claim: Claim) -> int:
    return len(claim[0]) + len(claim[1].token_ids) - 1


@torch.inference_mode()
def prefilled(engine: TransformersPrefill, batch: list[Claim]) -> list[torch.Tensor]:
    """As `engine.hidden_states` of each. Padding stands behind, where attention that looks back does not see it."""
    inputs = torch.zeros((len(batch), max(map(length, batch))), dtype=torch.long)
    for row, (prompt, choice) in zip(inputs, batch, strict=True):
        row[: length((prompt, choice))] = torch.tensor([*prompt, *choice.token_ids[:-1]])
    states = engine._model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    places = [slice(len(prompt) - 1, length((prompt, choice))) for prompt, choice in batch]
    return [rows[place] for rows, place in zip(states, places, strict=True)]


async def abandon(http: httpx.AsyncClient, path: str, body: dict[str, Any], random: Random) -> None:
    """Reads some of the stream, or waits a little for the whole, and goes."""
    after = random.randrange(0, 40)
    try:
        async with (
            asyncio.timeout(None if body["stream"] else after / 20),
            http.stream("POST", path, json=body) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            async for _ in answer.aiter_lines():
                after -= 1
                if body["stream"] and after < 0:
                    return
    except TimeoutError:
        return


def events(text: str) -> list[dict[str, Any]]:
    """Those that have proofs, or are errors."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    assert not any('"error":' in line and "toploc_proofs" not in line and '"error":null' not in line for line in lines)
    return [json.loads(line) for line in lines if "toploc_proofs" in line]


def fields_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("toploc_proofs") or document.get("response", {}).get("toploc_proofs")
    return [found] if found else []
