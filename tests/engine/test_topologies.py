"""More processes than one engine with one worker and one front end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from options import SERVE
from toploc_proxy.local_server import free_port

from models.adapter import MODEL
from models.corpus import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs

# vLLM binds a worker to the cores of one NUMA node and finds none for the second; it need not bind them.
# Connections stay, to be counted at the end.
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600"}

SPLIT = {
    "TP": ["--tensor-parallel-size", "2", "--toploc-copy-head"],
    # Eager, the second stage of vLLM 0.32 has no buffers for what the first sends and dies of an assertion, with or
    # without proofs: on a CPU only the warm-up before compilation makes them (v1/worker/cpu_model_runner.py).
    "PP": ["--pipeline-parallel-size", "2", "--no-enforce-eager", "-cc.mode=2", "-cc.backend=eager"],
}


@pytest.fixture(scope="module", params=["TP", pytest.param("PP", marks=pytest.mark.slow)])
def split(start: Callable[..., LocalServer], request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """One model over two workers."""
    with start(*SPLIT[request.param], **ENVIRONMENT) as server:
        assert {f"VLLM::Worker_{request.param}{rank}" for rank in (0, 1)} <= set(processes(server))
        yield server


@pytest.fixture(scope="module", params=[pytest.param("one machine", marks=pytest.mark.slow), "two machines"])
def replicated(
    start: Callable[..., LocalServer], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LocalServer]:
    """Two engines behind two front ends, any of which may meet any."""
    with ExitStack() as stack:
        options = ["--data-parallel-size", "2", "--api-server-count", "2"]
        if request.param == "two machines":
            options += stack.enter_context(second_machine(tmp_path_factory.mktemp("channel") / "secret"))
        yield stack.enter_context(start(*options, **ENVIRONMENT))


@contextmanager
def second_machine(secret: Path) -> Iterator[list[str]]:
    """Starts one of two engines as on a machine of its own, whose worker is reached over TCP; gives the options with
    which the other, and the front ends, meet it."""
    secret.write_text("7" * 64)
    rpc, channel = free_port(), free_port()
    shared = [
        *("--data-parallel-size-local", "1", "--data-parallel-address", "127.0.0.1"),
        *("--data-parallel-rpc-port", str(rpc)),
        *("--toploc-channel", f"tcp://127.0.0.1:{channel}", "--toploc-channel-secret", str(secret)),
    ]
    command = [sys.executable, "-m", "toploc", "serve", str(MODEL), *SERVE, "--data-parallel-size", "2", *shared]
    with subprocess.Popen(
        [*command, "--headless", "--data-parallel-start-rank", "1"],
        env={**os.environ, **ENVIRONMENT, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as second:
        try:
            yield shared
        finally:
            with suppress(ProcessLookupError):
                os.killpg(second.pid, signal.SIGKILL)


def processes(server: LocalServer) -> dict[str, psutil.Process]:
    """By the title vLLM gives them."""
    children = psutil.Process(server.pid).children(recursive=True)
    return {" ".join(child.cmdline()).strip(): child for child in children}


def ask_each(apis: list[Api]) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Messages and fields of a request to each at once; every other one has two choices."""

    def ask(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        messages = [{"role": "user", "content": exchange(Random(seed)).question}]
        body: dict[str, Any] = {"n": 1 + seed % 2, "temperature": 1, "ignore_eos": True, "max_tokens": 10 + 5 * seed}
        if seed % 3:
            return messages, [apis[seed].chat(messages, **body)["toploc_proofs"]]
        events = apis[seed].stream("/v1/chat/completions", messages=messages, **body)
        return messages, [event["toploc_proofs"] for event in events if "toploc_proofs" in event][-1:]

    with ThreadPoolExecutor(len(apis)) as pool:
        return list(pool.map(ask, range(len(apis))))


def verify_each(apis: list[Api]) -> None:
    """Each server's front end verifies answers of any other, all of them at once, down to their tokens."""

    def ask(number: int) -> None:
        options: dict[str, Any] = {"n": 2, "temperature": 1} if number % 2 else {"temperature": 0}
        messages = [{"role": "user", "content": exchange(Random(number)).question}]
        body = {"messages": messages, "ignore_eos": True, "max_tokens": 70, **options}
        response = apis[number].post("/v1/chat/completions", **body)
        report = apis[number - 1].report(response, **body)
        assert report["verdict"] == "accepted", str(report)
        found = {check["status"] for check in report["checks"] if check["name"] == "tokens"}
        assert found == {"weak" if number % 2 else "passed"}
        response["toploc_proofs"]["choices"][0]["proofs"].reverse()
        assert apis[number - 1].report(response, **body)["verdict"] == "rejected"

    with ThreadPoolExecutor(len(apis)) as pool:
        list(pool.map(ask, range(len(apis))))


def test_one_model_over_two_workers(
    split: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs]
) -> None:
    with api_of(split.url) as api:
        answers = ask_each([api] * 8)
        verify_each([api] * 8)
    for seed, (messages, fields) in enumerate(answers):
        assert sum(len(verified(field, messages).choices) for field in fields) == 1 + seed % 2


def test_two_engines_behind_two_front_ends(
    replicated: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs]
) -> None:
    """Proofs come from the engine that ran the request, to the front end that asked; on two machines too."""
    with ExitStack() as stack:
        # A connection of its own for each, to meet both front ends.
        apis = [stack.enter_context(api_of(replicated.url)) for _ in range(16)]
        answers = ask_each(apis)
        verify_each(apis)
        ports = {name: _local_ports(process) for name, process in processes(replicated).items() if "APIServer" in name}
        metrics = apis[0].http.get("/metrics").text
    for seed, (messages, fields) in enumerate(answers):
        assert sum(len(verified(field, messages).choices) for field in fields) == 1 + seed % 2
    assert {name for name, local in ports.items() if replicated.port in local} == {
        "VLLM::APIServer_0",
        "VLLM::APIServer_1",
    }
    finished = re.findall(r'^vllm:request_success_total\{engine="(\d)".*\} (\S+)$', metrics, re.MULTILINE)
    assert {engine for engine, count in finished if float(count) > 0} == {"0", "1"}


def _local_ports(process: psutil.Process) -> set[int]:
    """Ports that clients are connected to now."""
    connections = process.net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}
