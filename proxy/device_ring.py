"""The ring on a GPU: rows are written on the model's stream, chunks are reduced on one of their own.

Nothing here waits for the device on the engine's thread. What order needs is enforced between streams, on the device.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton
import triton.language as tl

from toploc.protocol import CHUNK_SIZE
from toploc.topk_triton import top_k_rows

from .ring import ChunkRefs, Features

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .ring import Reduction, Rows
    from .runners.step import Step

COPY_BLOCK = 1024

# A reduction is two launches and a copy, however many chunks it has, and 64 requests complete two chunks a step. The
# rows of a chunk are overwritten 32 rows after it is complete.
LAG = 16


# `n` changes from step to step, and must not be compiled for again.
@triton.jit(do_not_specialize=["n"])
def _write_rows(  # type: ignore[no-untyped-def]
    hidden_states,
    positions,
    input_ids,
    plan,
    values,
    tags,
    ids,
    n,
    hidden: tl.constexpr,
    stride: tl.constexpr,
    num_rows: tl.constexpr,
    block: tl.constexpr,
):
    i = tl.program_id(0)
    row = tl.load(plan + i)
    slot = tl.load(plan + n + i)
    epoch = tl.load(plan + 2 * n + i)
    position = tl.load(positions + row)
    at = slot * num_rows + position % num_rows
    for start in range(0, hidden, block):
        column = start + tl.arange(0, block)
        inside = column < hidden
        value = tl.load(hidden_states + row * stride + column, mask=inside)
        tl.store(values + at * hidden + column, value.to(values.dtype.element_ty), mask=inside)
    tl.store(tags + at, (epoch << 32) + position)
    tl.store(ids + at, tl.load(input_ids + row).to(tl.int32))


@triton.jit
def _gather_rows(rows, tags, ids, out_low, out_high, out_ids, stride_out, num_rows: tl.constexpr):  # type: ignore[no-untyped-def]
    chunk = tl.program_id(0)
    j = tl.arange(0, num_rows)
    row = tl.load(rows + chunk * num_rows + j)
    tag = tl.load(tags + row, mask=row >= 0, other=-1)
    tl.store(out_low + chunk * stride_out + j, (tag & 0xFFFFFFFF).to(tl.int32))
    tl.store(out_high + chunk * stride_out + j, (tag >> 32).to(tl.int32))
    tl.store(out_ids + chunk * stride_out + j, tl.load(ids + row, mask=row >= 0, other=-1).to(tl.int32))


class DeviceRing:
    """See `ring.Ring`. The engine's and the side channel's thread may both call it.

    What `write` is given for `rows` must not change: the same object again is not uploaded again.

    Args:
        max_step_rows: most rows of one request that a step writes, prefill aside.
    """

    lag = LAG

    def __init__(
        self,
        num_slots: int,
        num_rows: int,
        hidden_size: int,
        dtype: torch.dtype,
        topk: int,
        device: torch.device,
        *,
        max_step_rows: int = 1,
    ) -> None:
        self.num_slots = num_slots
        self.num_rows = num_rows
        self._topk = topk
        self._dtype = dtype
        self._device = device
        # A ring holds a second chunk, so writes reach the rows of a chunk in reduction only after so many more rows.
        self._writes_before_wait = (num_rows - CHUNK_SIZE - LAG) * 3 // 4 // max_step_rows
        self._values = torch.zeros(num_slots * num_rows, hidden_size, dtype=dtype, device=device)
        self._tags = torch.full((num_slots * num_rows,), -1, dtype=torch.int64, device=device)
        self._ids = torch.zeros(num_slots * num_rows, dtype=torch.int32, device=device)
        self._step_stream = torch.cuda.Stream(device)
        self._answer_stream = torch.cuda.Stream(device)
        self._upload = _Upload(device)
        self._plan = torch.empty(0, dtype=torch.int64, device=device)
        self._planned: Rows | None = None
        self._compiled: dict[object, Any] = {}
        self._lock = threading.Lock()
        self._pending: list[_Reduction] = []
        self._buffers: dict[int, list[_Buffer]] = {}

    @property
    def num_bytes(self) -> int:
        """Device memory taken."""
        return sum(t.numel() * t.element_size() for t in (self._values, self._tags, self._ids))

    def write(self, step: Step, rows: Rows, *, after_reductions: bool = False) -> None:
        if len(rows) == 0:
            return
        if self._pending:
            self._order_after_reductions(everything=after_reductions)
        if rows is not self._planned:
            self._plan = self._upload(np.concatenate([rows.rows, rows.slots, rows.epochs]))
            self._planned = rows
        states, positions, input_ids = step.hidden_states, step.positions, step.input_ids
        pointers = states.data_ptr() | positions.data_ptr() | input_ids.data_ptr() | self._plan.data_ptr()
        # What Triton specialises on (triton/runtime/jit.py, 3.6); to find that out anew is most of a launch.
        key = states.dtype, states.stride(0), positions.dtype, input_ids.dtype, pointers & 15
        arguments = (
            states,
            positions,
            input_ids,
            self._plan,
            self._values,
            self._tags,
            self._ids,
            len(rows),
            states.shape[-1],
            states.stride(0),
            self.num_rows,
            COPY_BLOCK,
        )
        compiled = self._compiled.get(key)
        if compiled is None:
            self._compiled[key] = _write_rows[(len(rows),)](*arguments)
        else:
            compiled[(len(rows), 1, 1)](*arguments)

    def _order_after_reductions(self, *, everything: bool) -> None:
        """Lets the model's stream wait for the reductions whose rows the next write may overwrite."""
        with self._lock:
            self._pending = [reduction for reduction in self._pending if not reduction.done()]
            pending = list(self._pending)
        for reduction in pending:
            reduction.writes_since += 1
            if everything or reduction.writes_since >= self._writes_before_wait:
                torch.cuda.current_stream(self._device).wait_event(reduction.started().event)

    def reduce(self, chunks: ChunkRefs, *, complete: bool = False) -> Reduction:
        ready = None
        if not complete:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self._device))
        return self._add(_Reduction(self, chunks, ready))

    def start(self, chunks: ChunkRefs, ready: torch.cuda.Event | None) -> _Buffer:
        """Launches the reduction of chunks once `ready` has passed; None: it has."""
        j = np.arange(CHUNK_SIZE)
        at = chunks.slots[:, None] * self.num_rows + (chunks.first_positions[:, None] + j) % self.num_rows
        rows = np.where(j < chunks.num_rows[:, None], at, -1)
        # Chunks that complete in a step wait for it; answers that end must not wait behind them.
        stream = self._answer_stream if ready is None else self._step_stream
        with torch.cuda.device(self._device):
            if ready is not None:
                stream.wait_event(ready)
            return self._launch(stream, rows, self._values, self._tags, self._ids)

    def reduce_step(self, step: Step, first_rows: Sequence[int]) -> Reduction:
        rows = np.array(first_rows, dtype=np.int64)[:, None] + np.arange(CHUNK_SIZE)
        # On the model's stream: its next step overwrites these rows. Positions have no epoch.
        none = np.zeros(len(rows), dtype=np.int64)
        stream = torch.cuda.current_stream(self._device)
        states = step.hidden_states.to(self._dtype)
        buffer = self._launch(stream, rows, states, step.positions, step.input_ids)
        return self._add(_Reduction(self, ChunkRefs(none, none, none, none), None, buffer))

    def _add(self, reduction: _Reduction) -> _Reduction:
        with self._lock:
            self._pending.append(reduction)
        return reduction

    def _launch(
        self,
        stream: torch.cuda.Stream,
        rows: npt.NDArray[np.int64],
        values: torch.Tensor,
        tags: torch.Tensor,
        ids: torch.Tensor,
    ) -> _Buffer:
        count, k = len(rows), self._topk
        buffer = self._take_buffer(count)
        # The engine's thread may be in inference mode, the side channel's is not, and they share buffers.
        with torch.cuda.stream(stream), torch.inference_mode():
            buffer.rows_host.numpy()[:count] = rows
            buffer.rows.copy_(buffer.rows_host, non_blocking=True)
            result = buffer.result[:count]
            low, high, input_ids = (result[:, 2 * k + i * CHUNK_SIZE :] for i in range(3))
            top_k_rows(values.view(torch.int16), buffer.rows[:count], k, result, result[:, k:])
            launch: Any = _gather_rows[(count,)]
            launch(buffer.rows, tags, ids, low, high, input_ids, result.stride(0), num_rows=CHUNK_SIZE)
            buffer.result_host.copy_(buffer.result, non_blocking=True)
            buffer.event.record(stream)
        return buffer

    def _take_buffer(self, count: int) -> _Buffer:
        capacity = triton.next_power_of_2(count)
        with self._lock:
            free = self._buffers.setdefault(capacity, [])
            if free:
                return free.pop()
        return _Buffer(capacity, 2 * self._topk + 3 * CHUNK_SIZE, self._device)

    def read(self, buffer: _Buffer, epochs: npt.NDArray[np.int64]) -> Features:
        """Features from a buffer whose event has passed; takes the buffer back."""
        k = self._topk
        values = buffer.result_host.numpy()[: len(epochs)].copy()
        with self._lock:
            self._buffers[len(buffer.result_host)].append(buffer)
        low, high, input_ids = (values[:, 2 * k + i * CHUNK_SIZE :][:, :CHUNK_SIZE] for i in range(3))
        positions = np.where(high == epochs[:, None], low, -1).astype(np.int64)
        return Features(values[:, :k], values[:, k : 2 * k].astype(np.uint16), positions, input_ids.astype(np.int64))


class _Upload:
    """Small arrays on their way to the device, through pinned memory that is used in turn."""

    COPIES = 16

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._next = 0
        self._resize(1024)

    def _resize(self, size: int) -> None:
        self._host = [torch.empty(size, dtype=torch.int64, pin_memory=True) for _ in range(self.COPIES)]
        self._events = [torch.cuda.Event() for _ in range(self.COPIES)]
        self._target = torch.empty(size, dtype=torch.int64, device=self._device)

    def __call__(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        """The array on the device, ordered on the current stream; valid until the next call."""
        if len(array) > len(self._target):
            self._resize(2 * len(array))
        i = self._next = (self._next + 1) % self.COPIES
        if not self._events[i].query():
            # So far behind is no engine; but a buffer still being read must not be written.
            self._host[i] = torch.empty_like(self._host[i], pin_memory=True)
        self._host[i].numpy()[: len(array)] = array
        with torch.inference_mode():
            self._target[: len(array)].copy_(self._host[i][: len(array)], non_blocking=True)
        self._events[i].record()
        return self._target


class _Buffer:
    """Device and pinned memory for one launch, of up to `capacity` chunks."""

    def __init__(self, capacity: int, width: int, device: torch.device) -> None:
        self.rows_host = torch.empty(capacity, CHUNK_SIZE, dtype=torch.int64, pin_memory=True)
        self.rows = torch.empty(capacity, CHUNK_SIZE, dtype=torch.int64, device=device)
        self.result = torch.empty(capacity, width, dtype=torch.int32, device=device)
        self.result_host = torch.empty(capacity, width, dtype=torch.int32, pin_memory=True)
        self.event = torch.cuda.Event()


class _Reduction:
    """Started by the side channel's thread, or by the engine's where its rows are about to be overwritten."""

    def __init__(
        self, ring: DeviceRing, chunks: ChunkRefs, ready: torch.cuda.Event | None, buffer: _Buffer | None = None
    ) -> None:
        self.writes_since = 0
        self._ring = ring
        self._chunks = chunks
        self._ready = ready
        self._starting = threading.Lock()
        self._buffer = buffer
        # Of the buffer, which may be another reduction's by the time that the engine's thread looks here again.
        self._read = False

    def start(self) -> None:
        self.started()

    def started(self) -> _Buffer:
        """Its buffer, whoever starts it."""
        with self._starting:
            if self._buffer is None:
                self._buffer = self._ring.start(self._chunks, self._ready)
            return self._buffer

    def done(self) -> bool:
        return self._read or (self._buffer is not None and self._buffer.event.query())

    def features(self) -> Features:
        buffer = self.started()
        buffer.event.synchronize()
        self._read = True
        return self._ring.read(buffer, self._chunks.epochs)
