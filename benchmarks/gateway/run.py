"""What `toploc gateway` costs over a plain reverse proxy of the same stack (Starlette, httpx, uvicorn).

    python benchmarks/gateway/run.py [--rounds 5] [--streams 64] [--events 512]

One proxy at a time has a core to itself; provider, verifier and load share the other, and write bytes that were made
before. Proxies take turns. A request's latency is of one request at a time, throughput of `--streams` at once, as fast
as they go. Processor time is the proxy's own for a stream, by /proc: the least of all rounds, since others on the
machine only add to it. The verifier accepts at once; what checking costs it is measured in benchmarks/verify.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toploc.report import REQUIRED, Check, Report

HERE = Path(__file__).parent
RECORDED = HERE.parents[1] / "tests" / "toploc" / "evidence" / "greedy.json"
TICKS = os.sysconf("SC_CLK_TCK")
ACCEPTED = Report.of([Check(name=name, status="passed", message="") for name in REQUIRED])  # type: ignore[arg-type]


class Bytes(asyncio.Protocol):
    """An HTTP server that knows three replies."""

    replies: dict[str, list[bytes]]
    count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.rest = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.rest[:end]).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self.rest) < end + 4 + length:
                return
            body = bytes(self.rest[end + 4 : end + 4 + length])
            del self.rest[: end + 4 + length]
            path = head.split()[1]
            name = "verify" if b"verify" in path else "describe" if b"toploc" in path else "json"
            if b'"stream": true' in body:
                name = "stream"
            Bytes.count += 1
            task = asyncio.ensure_future(self.reply(self.replies[name], f"id-{Bytes.count:07}".encode()))
            TASKS.add(task)
            task.add_done_callback(TASKS.discard)

    async def reply(self, parts: list[bytes], name: bytes) -> None:
        """A part a turn of the loop, so that parts of many streams come in turns."""
        for part in parts:
            self.transport.write(part.replace(b"id-0000000", name))
            await asyncio.sleep(0)


TASKS: set[asyncio.Task[None]] = set()


def replies(events: int) -> dict[str, list[bytes]]:
    """A recorded answer; a stream of as many events with its proofs on the last but one."""
    answer = json.loads(RECORDED.read_bytes())["response"] | {"id": "id-0000000"}
    head = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    made = [
        {**head, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]} for _ in range(events)
    ]
    made[-1]["choices"][0]["finish_reason"] = "stop"
    made[-1]["toploc_proofs"] = answer["toploc_proofs"]
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in made] + [b"data: [DONE]\n\n"]
    chunks = [f"{len(line):x}\r\n".encode() + line + b"\r\n" for line in lines]
    start = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return {
        "stream": [start, *chunks, b"0\r\n\r\n"],
        "json": [whole(json.dumps(answer).encode())],
        "describe": [whole(b'{"scheme": "toploc-gf65497", "sampler": null}')],
        "verify": [whole(ACCEPTED.model_dump_json().encode())],
    }


def whole(body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


PLAIN = """
import httpx, sys, uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
DROPPED = {b"host", b"content-length", b"connection", b"transfer-encoding", b"keep-alive"}
client = httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None))
async def proxy(request: Request) -> StreamingResponse:
    headers = [(n, v) for n, v in request.headers.raw if n not in DROPPED]
    url, body = sys.argv[1] + request.url.path, await request.body()
    asked = client.build_request(request.method, url, headers=headers, content=body)
    reply = await client.send(asked, stream=True)
    response = StreamingResponse(reply.aiter_raw(), reply.status_code)
    kept = DROPPED - {b"content-length"}
    response.raw_headers = [(n.lower(), v) for n, v in reply.headers.raw if n.lower() not in kept]
    async def close() -> None:
        await reply.aclose()
    from starlette.background import BackgroundTask
    response.background = BackgroundTask(close)
    return response
app = Starlette(routes=[Route("/{path:path}", proxy, methods=["GET", "POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_config=None, access_log=False)
"""

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "no proofs": {"proofs": "none"},
    "background, a tenth": {"policy": {"when": "background", "audit_rate": 0.1}},
    "background, all": {"policy": {"when": "background"}},
    "inline, a tenth": {"policy": {"audit_rate": 0.1}},
    "inline, all": {},
}


@dataclass
class Proxy:
    name: str
    url: str
    process: subprocess.Popen[bytes]
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"json": [], "stream": []})
    throughputs: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def ticks(self) -> float:
        """Seconds of a processor that it has used, with all its threads."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS


def start(name: str, provider: str, folder: Path) -> Proxy:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
    if name == "plain":
        command = [sys.executable, "-c", PLAIN, provider, str(port)]
    else:
        upstream = {"name": "one", "url": f"{provider}/v1", "models": ["*"], "verifiers": [{"url": provider}]}
        config = {"port": port, "store": {"url": f"sqlite:{folder / name.replace(' ', '-')}.db"}}
        path = folder / f"{name}.yaml"
        quiet = {"quarantine": {"after": []}}
        given = CONFIGURATIONS[name]
        policy = {**quiet, **given.get("policy", {})}
        path.write_text(yaml.safe_dump({**config, "upstreams": [{**upstream, **given, "policy": policy}]}))
        command = [sys.executable, "-m", "toploc", "gateway", str(path)]
    process = subprocess.Popen(["taskset", "-c", "1", *command], stderr=subprocess.DEVNULL)
    return Proxy(name, f"http://127.0.0.1:{port}", process)


class Load:
    """Requests by bare sockets, since the load must cost less than what it measures."""

    def __init__(self, url: str) -> None:
        self.port = int(url.rpartition(":")[2])
        self.request = json.loads(RECORDED.read_bytes())["request"]

    async def one(self, kind: str, connection: Any = None) -> Any:
        """The connection, for the next."""
        reader, writer = connection or await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        body = json.dumps({**self.request, "stream": kind == "stream"}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        headers = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in headers.split(b"\r\n")[0], headers
        if b"content-length" in headers:
            length = int(headers.partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        return reader, writer

    async def latency(self, kind: str, count: int) -> list[float]:
        connection, found = await self.one(kind), []
        for _ in range(count):
            begun = time.perf_counter()
            connection = await self.one(kind, connection)
            found.append(time.perf_counter() - begun)
        connection[1].close()
        return found

    async def throughput(self, streams: int, each: int) -> float:
        """Streams a second."""

        async def some() -> None:
            connection = None
            for _ in range(each):
                connection = await self.one("stream", connection)
            connection[1].close()

        begun = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(streams)))
        return streams * each / (time.perf_counter() - begun)


async def measure(proxies: list[Proxy], options: argparse.Namespace) -> None:
    for proxy in proxies:
        await ready(proxy)
    for _ in range(options.rounds):
        for proxy in proxies:
            load = Load(proxy.url)
            for kind in ("json", "stream"):
                count = options.requests if kind == "json" else options.requests // 5
                proxy.latencies[kind] += await load.latency(kind, count)
            before = proxy.ticks()
            proxy.throughputs.append(await load.throughput(options.streams, options.each))
            proxy.processor.append((proxy.ticks() - before) / (options.streams * options.each))


async def ready(proxy: Proxy) -> None:
    for _ in range(300):
        try:
            await Load(proxy.url).one("json")
            return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.1)
    raise SystemExit(f"{proxy.name} does not answer")


async def run(options: argparse.Namespace) -> dict[str, Any]:
    Bytes.replies = replies(options.events)
    server = await asyncio.get_running_loop().create_server(Bytes, "127.0.0.1", 0)
    provider = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        names = ["plain", *(name for name in CONFIGURATIONS if not options.only or name in options.only)]
        proxies = [start(name, provider, Path(folder)) for name in names]
        try:
            await measure(proxies, options)
        finally:
            for proxy in proxies:
                proxy.process.kill()
                proxy.process.wait()
    return {proxy.name: row(proxy, proxies[0]) for proxy in proxies}


def row(proxy: Proxy, plain: Proxy) -> dict[str, float]:
    """Medians over rounds; what is lost is the median over rounds of the loss in each."""

    def more(kind: str) -> float:
        return 1000 * (statistics.median(proxy.latencies[kind]) - statistics.median(plain.latencies[kind]))

    pairs = list(zip(proxy.throughputs, plain.throughputs, strict=True))
    return {
        "json_p50_ms": 1000 * statistics.median(proxy.latencies["json"]),
        "json_more_ms": more("json"),
        "stream_p50_ms": 1000 * statistics.median(proxy.latencies["stream"]),
        "stream_more_ms": more("stream"),
        "streams_per_s": statistics.median(proxy.throughputs),
        "throughput_loss": statistics.median(1 - ours / theirs for ours, theirs in pairs),
        "processor_ms": 1000 * min(proxy.processor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--events", type=int, default=512, help="of a stream")
    parser.add_argument("--each", type=int, default=4, help="streams that each of them asks for, one after another")
    parser.add_argument("--requests", type=int, default=100, help="one after another, for latency; a fifth as streams")
    parser.add_argument("--only", nargs="*", help="configurations beside the plain proxy")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the proxies end too
    load = os.getloadavg()
    found = asyncio.run(run(options))
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load_before": load, **vars(options)}
    for name, values in found.items():
        print(f"{name:22}", "  ".join(f"{key} {value:8.3f}" for key, value in values.items()))
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": machine, "found": found}, default=str, indent=1) + "\n")


if __name__ == "__main__":
    main()
