"""The ring and the top-k on a GPU give what the CPU's give, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.ring import ChunkRefs, Rows
from toploc_proxy.capture.step import Step

from toploc.proofs.topk import top_k

pytestmark = pytest.mark.gpu

TOPK = 128


def patterns(generator: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    normal = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    match kind:
        case "normal":
            values = normal
        case "outliers":
            values = normal.clone()
            values[..., :6] *= 100
        case "equal":
            values = torch.ones(shape)
        case "zeros":
            values = torch.zeros(shape)
        case "few_values":
            values = (normal * 2).round()
    return values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


@pytest.mark.parametrize("kind", ["normal", "outliers", "equal", "zeros", "few_values"])
@pytest.mark.parametrize("hidden", [128, 256, 1000, 4096, 5120, 8192])
def test_top_k_rows_equals_the_cpu(hidden: int, kind: str) -> None:
    from toploc.kernels.topk import top_k_rows

    values = patterns(np.random.default_rng(hidden), (200, hidden), kind)
    for total, size in [(200, 32), (33, 32), (31, 32), (1, 32), (39, 31), (96, 32)]:
        starts = range(0, total, size)
        result = torch.zeros(len(starts), 2 * TOPK, dtype=torch.int32, device="cuda")
        on_device = torch.from_numpy(values[:total].view(np.int16)).cuda()
        top_k_rows(on_device, size, TOPK, result, result[:, TOPK:])
        for found, start in zip(result.cpu().numpy(), starts, strict=True):
            indices, expected = top_k(values[start : min(start + size, total)].ravel(), TOPK)
            order = np.argsort(indices)
            assert found[:TOPK].tolist() == indices[order].tolist()
            assert found[TOPK:].tolist() == expected[order].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden", [256, 4096])
def test_ring_equals_the_host_ring(hidden: int, dtype: torch.dtype) -> None:
    """The same writes and reductions, many times over, with rows overwritten and slots reused."""
    from toploc_proxy.capture.device_ring import DeviceRing

    generator = np.random.default_rng(1)
    host = HostRing(8, 64, hidden, dtype, TOPK)
    device = DeviceRing(8, 64, hidden, dtype, TOPK, torch.device("cuda"))
    pending = []
    for count in range(300):
        n = int(generator.integers(1, 9))
        states = torch.randn(n + 3, hidden).to(dtype)
        positions = torch.from_numpy(generator.integers(0, 40, n + 3)) + count
        ids = torch.from_numpy(generator.integers(0, 1000, n + 3).astype(np.int32))
        rows = Rows(np.arange(n), generator.permutation(8)[:n].astype(np.int64), np.full(n, 1 + count // 100))
        empty = np.zeros(0, dtype=np.int64)
        host.write(Step([], empty, empty, states, positions, ids), rows)
        device.write(Step([], empty, empty, states.cuda(), positions.cuda(), ids.cuda()), rows)
        if count % 7 == 0:
            n_chunks = int(generator.integers(1, 6))
            refs = ChunkRefs(
                slots=generator.integers(0, 8, n_chunks),
                epochs=np.full(n_chunks, 1 + count // 100),
                first_positions=np.full(n_chunks, count),
                num_rows=generator.integers(1, 33, n_chunks),
            )
            complete = bool(count % 2)
            if complete:
                torch.cuda.synchronize()
            pending.append((refs, host.reduce(refs), device.reduce(refs, complete=complete)))
    for refs, on_host, on_device in pending:
        expected, found = on_host.features(), on_device.features()
        inside = np.arange(32) < refs.num_rows[:, None]
        np.testing.assert_array_equal(found.positions[inside], expected.positions[inside])
        np.testing.assert_array_equal(found.input_ids[inside], expected.input_ids[inside])
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.patterns, expected.patterns)


def test_reduce_step_equals_the_host_ring() -> None:
    from toploc_proxy.capture.device_ring import DeviceRing

    host = HostRing(1, 64, 2048, torch.bfloat16, TOPK)
    device = DeviceRing(1, 64, 2048, torch.bfloat16, TOPK, torch.device("cuda"))
    states = torch.randn(500, 2048).to(torch.bfloat16)
    positions, ids = torch.arange(500) + 7, torch.arange(500, dtype=torch.int32)
    empty = np.zeros(0, dtype=np.int64)
    first_rows = [3, 35, 400, 67, *range(100, 350, 5)]
    expected = host.reduce_step(Step([], empty, empty, states, positions, ids), first_rows).features()
    on_device = Step([], empty, empty, states.cuda(), positions.cuda(), ids.cuda())
    found = device.reduce_step(on_device, first_rows).features()
    for field in ("indices", "patterns", "positions", "input_ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_synchronises() -> None:
    """What the engine's thread calls runs under the checker that vLLM itself offers for this."""
    from toploc_proxy.capture.device_ring import DeviceRing

    device = DeviceRing(4, 64, 1024, torch.bfloat16, TOPK, torch.device("cuda"))
    states = torch.randn(64, 1024, device="cuda").to(torch.bfloat16)
    empty = np.zeros(0, dtype=np.int64)
    step = Step([], empty, empty, states, torch.arange(64, device="cuda"), torch.zeros(64, dtype=torch.int32).cuda())
    rows = Rows(np.arange(32), np.zeros(32, dtype=np.int64), np.ones(32, dtype=np.int64))
    device.write(step, rows)
    zero = np.zeros(1, dtype=np.int64)
    refs = ChunkRefs(slots=zero, epochs=zero + 1, first_positions=zero, num_rows=zero + 32)
    device.reduce(refs).features()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            device.write(step, rows)
            device.reduce(refs)
            device.reduce_step(step, [0, 32])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_about_to_be_overwritten_are_reduced_before() -> None:
    """However late a reduction runs, the model's stream waits for it."""
    from toploc_proxy.capture.device_ring import DeviceRing

    host = HostRing(1, 64, 512, torch.bfloat16, TOPK)
    device = DeviceRing(1, 64, 512, torch.bfloat16, TOPK, torch.device("cuda"))
    states = torch.randn(200, 512).to(torch.bfloat16)
    ids = torch.arange(200, dtype=torch.int32)
    empty, zero, one = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    reductions = []
    for i in range(200):
        at, position = slice(i, i + 1), torch.tensor([i])
        host.write(Step([], empty, empty, states[at], position, ids[at]), Rows(zero, zero, one))
        step = Step([], empty, empty, states[at].cuda(), position.cuda(), ids[at].cuda())
        device.write(step, Rows(zero, zero, one))
        if i % 32 == 31:
            refs = ChunkRefs(zero, one, zero + i - 31, zero + 32)
            reductions.append((host.reduce(refs).features(), device.reduce(refs)))
    for expected, reduction in reductions:
        found = reduction.features()
        for field in ("indices", "patterns", "positions", "input_ids"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize("bits", [torch.int32, torch.int64], ids=["vLLM", "SGLang"])
def test_nothing_is_compiled_at_the_first_answer(bits: torch.dtype) -> None:
    from toploc_proxy.capture.device_ring import DeviceRing
    from toploc_proxy.worker import warm_up

    ring = DeviceRing(2, 64, 256, torch.bfloat16, TOPK, torch.device("cuda"))
    states = torch.zeros(32, 256, dtype=torch.bfloat16, device="cuda")
    warm_up(ring, states)
    forms = len(ring._compiled)
    empty, positions = np.zeros(0, dtype=np.int64), torch.arange(32, device="cuda")
    step = Step([], empty, empty, states, positions, positions.to(bits))
    ring.write(step, Rows(np.arange(2), np.arange(2), np.ones(2, dtype=np.int64)))
    ring.reduce_step(step, [0]).features()
    assert len(ring._compiled) == forms
