"""More processes than one engine with one worker and one front end."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from corpus import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.protocol import ToplocProofs

# vLLM binds a worker to the cores of one NUMA node and finds none for the second; it need not bind them.
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}

SPLIT = {
    "TP": ["--tensor-parallel-size", "2"],
    # Eager, the second stage of vLLM 0.32 has no buffers for what the first sends and dies of an assertion, with or
    # without proofs: on a CPU only the warm-up before compilation makes them (v1/worker/cpu_model_runner.py).
    "PP": ["--pipeline-parallel-size", "2", "--no-enforce-eager", "-cc.mode=2", "-cc.backend=eager"],
}


@pytest.fixture(scope="module", params=SPLIT)
def split(launch: Callable[..., LocalServer], request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """One model over two workers."""
    with launch(*SPLIT[request.param], **ENVIRONMENT) as server:
        assert {f"VLLM::Worker_{request.param}{rank}" for rank in (0, 1)} <= set(processes(server))
        yield server


@pytest.fixture(scope="module")
def replicated(launch: Callable[..., LocalServer]) -> Iterator[LocalServer]:
    """Two engines behind two front ends, any of which may meet any."""
    with launch("--data-parallel-size", "2", "--api-server-count", "2", **ENVIRONMENT) as server:
        yield server


def processes(server: LocalServer) -> dict[str, psutil.Process]:
    """By the title vLLM gives them."""
    children = psutil.Process(server.pid).children(recursive=True)
    return {" ".join(child.cmdline()).strip(): child for child in children}


def ask_each(apis: list[Api]) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Messages and fields of a request to each at once; every other one has two choices."""

    def ask(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        messages = [{"role": "user", "content": exchange(Random(seed)).question}]
        body: dict[str, Any] = {"n": 1 + seed % 2, "temperature": 1, "ignore_eos": True, "max_tokens": 10 + 8 * seed}
        if seed % 3:
            return messages, [apis[seed].chat(messages, **body)["toploc_proofs"]]
        events = apis[seed].stream("/v1/chat/completions", messages=messages, **body)
        return messages, [event["toploc_proofs"] for event in events if "toploc_proofs" in event]

    with ThreadPoolExecutor(len(apis)) as pool:
        return list(pool.map(ask, range(len(apis))))


def test_one_model_over_two_workers(
    split: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs]
) -> None:
    with api_of(split.url) as api:
        answers = ask_each([api] * 8)
    for seed, (messages, fields) in enumerate(answers):
        assert sum(len(verified(field, messages).choices) for field in fields) == 1 + seed % 2


def test_two_engines_behind_two_front_ends(
    replicated: LocalServer, api_of: type[Api], verified: Callable[..., ToplocProofs]
) -> None:
    """Proofs come from the engine that ran the request, to the front end that asked."""
    with ExitStack() as stack:
        # A connection of its own for each, to meet both front ends, which keep it for some seconds.
        apis = [stack.enter_context(api_of(replicated.url)) for _ in range(24)]
        answers = ask_each(apis)
        ports = {name: _local_ports(process) for name, process in processes(replicated).items() if "APIServer" in name}
        metrics = apis[0].http.get("/metrics").text
    assert {name for name, local in ports.items() if replicated.port in local} == {
        "VLLM::APIServer_0",
        "VLLM::APIServer_1",
    }
    finished = re.findall(r'^vllm:request_success_total\{engine="(\d)".*\} (\S+)$', metrics, re.MULTILINE)
    assert {engine for engine, count in finished if float(count) > 0} == {"0", "1"}
    for seed, (messages, fields) in enumerate(answers):
        assert sum(len(verified(field, messages).choices) for field in fields) == 1 + seed % 2


def _local_ports(process: psutil.Process) -> set[int]:
    """Ports that clients are connected to now."""
    connections = process.net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}
