"""What `toploc_client.OpenAI` takes longer than `openai.OpenAI` for a response, where it checks nothing.

    python benchmarks/client/run.py [--long]

Both read the same recorded answer, which a transport in this process hands them, so that neither network nor model is
timed. They take turns, a block of calls each. Times are of the processor; `more` is the median over pairs of blocks of
the difference of their means.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import toploc_client
from toploc_client import Check, Report

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED = Path(__file__).parents[2] / "tests" / "toploc" / "evidence" / "greedy.json"
CALL: dict[str, Any] = {"model": "toploc-mini", "messages": [{"role": "user", "content": "Count from 1 to 40."}]}


class Recorded(httpx2.BaseTransport):
    def __init__(self, tokens: int) -> None:
        """An answer of as many tokens, a multiple of 32: the recorded one's first chunk over and over."""
        whole = json.loads(RECORDED.read_bytes())["response"]
        [choice], [proven] = whole["choices"], whole["toploc_proofs"]["choices"]
        proven["token_ids"] = proven["token_ids"][:32] * (tokens // 32)
        proven["proofs"] = proven["proofs"][:1] * (tokens // 32)
        choice["message"]["content"] = " word" * tokens
        self._whole = json.dumps(whole).encode()
        head = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        events = [
            {**head, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
            for _ in range(tokens)
        ]
        events[-1]["choices"][0]["finish_reason"] = choice["finish_reason"]
        events[-1]["toploc_proofs"] = whole["toploc_proofs"]
        lines = [json.dumps(event).encode() for event in events] + [b"[DONE]"]
        self._events = b"".join(b"data: " + line + b"\n\n" for line in lines)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._events)
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=self._whole)


class Hostile(Recorded):
    """A stream as long, with a field in each event, as no honest server sends it."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        field = json.loads(self._whole)["toploc_proofs"]
        field["choices"][0].update(token_ids=[1], proofs=["x"])
        lines = self._events.split(b"\n\n")[:-2]
        events = [{**json.loads(line[6:]), "toploc_proofs": field} for line in lines]
        self._events = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def whole(client: Any) -> None:
    assert client.chat.completions.create(**CALL).choices


def streamed(client: Any) -> None:
    for event in client.chat.completions.create(stream=True, **CALL):
        assert event.choices


def compare(call: Callable[[Any], None], clients: list[Any], blocks: int, size: int) -> list[float]:
    """Milliseconds of a call with the first client, and how many more with each of the others."""
    times: list[list[float]] = [[] for _ in clients]
    for block in range(blocks + 1):
        for client, found in zip(clients, times, strict=True):
            gc.collect()
            begin = time.process_time()
            for _ in range(size):
                call(client)
            if block:  # the first warms up
                found.append((time.process_time() - begin) / size * 1000)
    first, *others = times  # of each block
    more = [[mine - plain for mine, plain in zip(found, first, strict=True)] for found in others]
    return [statistics.median(found) for found in (first, *more)]


def accept(_: bytes) -> Report:
    return Report.of([Check(name=name, status="passed", message="") for name in ("model", "prompt", "proofs")])


def long_streams(blocks: int) -> None:
    print("| stream | bytes | plain SDK, ms | with a verifier, times as long |")
    print("| --- | --- | --- | --- |")
    for name, kind, tokens in (
        ("honest", Recorded, 6080),
        ("honest", Recorded, 12160),
        ("a field in each event", Hostile, 1280),
    ):
        transport = kind(tokens)
        options: dict[str, Any] = {"base_url": "http://server/v1", "api_key": "none"}
        clients = [
            make(**options, **own, http_client=httpx2.Client(transport=transport))
            for make, own in (
                (openai.OpenAI, {}),
                (toploc_client.OpenAI, {"verifier": accept, "on_reject": "warn", "on_undecided": "warn"}),
            )
        ]
        plain, more = compare(read, clients, blocks, 1)
        print(f"| {name} | {len(transport._events):,} | {plain:.0f} | {(plain + more) / plain:.2f} |", flush=True)


def read(client: Any) -> None:
    for _ in client.chat.completions.create(stream=True, **CALL, temperature=0):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--long", action="store_true", help="streams of 1 MB alone, also a hostile one")
    args = parser.parse_args()
    if args.long:
        long_streams(args.blocks)
        return
    print(f"openai {openai.__version__}, Python {platform.python_version()}, {platform.machine()}\n")
    print("| response | plain SDK, ms | ours, more | with `evidence`, more |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for tokens in (32, 256, 1024):
            options: dict[str, Any] = {"base_url": "http://server/v1", "api_key": "none"}
            kinds = [(openai.OpenAI, {}), (toploc_client.OpenAI, {})]
            kinds.append((toploc_client.OpenAI, {"evidence": Path(folder) / "evidence.jsonl"}))
            clients = [
                kind(**options, **own, http_client=httpx2.Client(transport=Recorded(tokens))) for kind, own in kinds
            ]
            for name, call, size in (("whole", whole, 20), ("streamed", streamed, max(2, 1000 // tokens))):
                row = [f"{tokens:,} tokens, {name}", *(f"{t:.3f}" for t in compare(call, clients, args.blocks, size))]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
