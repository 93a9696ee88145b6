"""The ring on a GPU: rows are written on the model's stream, chunks are reduced on one of their own.

Nothing here waits for the device on the engine's thread. What order needs is enforced between streams, on the device.
A reduction is one launch: the kernel reads from pinned memory which chunks, and writes what is kept of them there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import triton

from toploc.kernels.topk import NUM_WARPS, block_of
from toploc.scheme import CHUNK_SIZE

from .kernels import reduce_chunks, write_rows
from .ring import ChunkRefs, Features

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .ring import Reduction, Rows
    from .step import Step

COPY_BLOCK: Final = 1024
"""Elements of a row that a program copies at once."""

LAG: Final = 16
"""A reduction is one launch, however many chunks it has, and 64 requests complete two chunks a step. The rows of a
chunk are overwritten 32 rows after it is complete."""

BUFFERS: Final = 4
"""Of each capacity, at the start: reductions that can wait to be read before more memory is pinned."""

NO_RING: Final = 1 << 30
"""Of a step's own rows, which lie in no ring: more than any step has."""


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
        self._width = 2 * topk + 2 * CHUNK_SIZE
        self._dtype = dtype
        self._device = device
        # A ring holds a second chunk, so writes reach the rows of a chunk in reduction only after so many more rows.
        self._writes_before_wait = (num_rows - CHUNK_SIZE - LAG) * 3 // 4 // max_step_rows
        self._values = torch.zeros(num_slots * num_rows, hidden_size, dtype=dtype, device=device)
        self._patterns = self._values.view(torch.int16)
        self._tags = torch.full((num_slots * num_rows,), -1, dtype=torch.int64, device=device)
        self._ids = torch.zeros(num_slots * num_rows, dtype=torch.int32, device=device)
        # Chunks that complete in a step wait for it; answers that end must not wait behind them, nor behind the model.
        self._step_stream = torch.cuda.Stream(device)
        self._answer_stream = torch.cuda.Stream(device, priority=-1)
        self._step_over = torch.cuda.Event()
        self._upload = _Upload(device)
        self._plan = torch.empty(0, dtype=torch.int64, device=device)
        self._planned: Rows | None = None
        self._compiled: dict[object, Any] = {}
        self._lock = threading.Lock()
        self._pending: list[_Reduction] = []
        # Pinning memory takes as long as some steps, so the engine's thread finds what it needs.
        capacities = [1 << bits for bits in range((num_slots - 1).bit_length() + 1)]
        self._buffers = {capacity: [_Buffer(capacity, self._width) for _ in range(BUFFERS)] for capacity in capacities}

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
        tensors = states, positions, input_ids, self._plan, self._values, self._tags, self._ids
        sizes = len(rows), states.shape[-1], states.stride(0), self.num_rows, COPY_BLOCK
        self._launch(write_rows, len(rows), tensors, sizes, sizes[1:])

    def _launch(
        self,
        kernel: Any,
        programs: int,
        tensors: tuple[torch.Tensor, ...],
        sizes: tuple[int, ...],
        specialised: tuple[int, ...],
        **options: int,
    ) -> None:
        """Launches a kernel on the current stream.

        What Triton compiles another form for (triton/runtime/jit.py, 3.6) is asked here: to find that out anew is most
        of a launch. Of the rest, most is asking the driver about each tensor's memory, which it leaves out where it is
        given a number (`getPointer`, triton/backends/nvidia/driver.py). Pinned memory has one address for both sides.
        """
        pointers = [tensor.data_ptr() for tensor in tensors]
        key = kernel, specialised, *[(tensor.dtype, at & 15) for tensor, at in zip(tensors, pointers, strict=True)]
        compiled = self._compiled.get(key)
        if compiled is None:
            self._compiled[key] = kernel[(programs,)](*tensors, *sizes, **options)
        else:
            compiled[(programs, 1, 1)](*pointers, *sizes)

    def _order_after_reductions(self, *, everything: bool) -> None:
        """Lets the model's stream wait for the reductions whose rows the next write may overwrite."""
        with self._lock:
            self._pending = [reduction for reduction in self._pending if not reduction.done()]
            pending = list(self._pending)
        for reduction in pending:
            reduction.writes_since += 1
            if everything or reduction.writes_since >= self._writes_before_wait:
                torch.cuda.current_stream(self._device).wait_event(reduction.buffer.event)

    def reduce(self, chunks: ChunkRefs, *, complete: bool = False) -> Reduction:
        bases = chunks.slots * self.num_rows
        refs = np.stack([bases, chunks.first_positions, chunks.num_rows, chunks.epochs], axis=1)
        stream = self._answer_stream
        with torch.cuda.device(self._device):
            if not complete:
                stream = self._step_stream
                self._step_over.record(torch.cuda.current_stream(self._device))
                stream.wait_event(self._step_over)
            return self._reduce(stream, refs, (self._patterns, self._tags, self._ids), self.num_rows)

    def forget(self) -> None:
        self._tags.fill_(-1)
        self._planned = None
        with self._lock:
            self._pending.clear()

    def reduce_step(self, step: Step, first_rows: Sequence[int]) -> Reduction:
        refs = np.zeros((len(first_rows), 4), dtype=np.int64)
        refs[:, 1], refs[:, 2] = first_rows, CHUNK_SIZE
        # On the model's stream: its next step overwrites these rows. Positions have no epoch.
        stream = torch.cuda.current_stream(self._device)
        patterns = step.hidden_states.to(self._dtype).view(torch.int16)
        return self._reduce(stream, refs, (patterns, step.positions, step.input_ids), NO_RING)

    def _reduce(
        self,
        stream: torch.cuda.Stream,
        refs: npt.NDArray[np.int64],
        rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        ring: int,
    ) -> _Reduction:
        """Reduces chunks of values, tags and ids. `refs` [n, 4]: base, first, num_rows and epoch of each; its rows are
        `base + (first + i) % ring`, i below `num_rows`."""
        buffer = self._take_buffer(len(refs))
        buffer.refs.numpy()[: len(refs)] = refs
        hidden = rows[0].shape[-1]
        sizes = ring, hidden, self._topk, CHUNK_SIZE, block_of(hidden)
        with torch.cuda.stream(stream):
            tensors = buffer.refs, *rows, buffer.result
            self._launch(reduce_chunks, len(refs), tensors, sizes, sizes, num_warps=NUM_WARPS)
            buffer.event.record(stream)
        reduction = _Reduction(self, buffer, len(refs))
        with self._lock:
            self._pending.append(reduction)
        return reduction

    def _take_buffer(self, count: int) -> _Buffer:
        capacity = triton.next_power_of_2(count)
        with self._lock:
            free = self._buffers.setdefault(capacity, [])
            if free:
                return free.pop()
        return _Buffer(capacity, self._width)

    def read(self, buffer: _Buffer, count: int) -> Features:
        """Features from a buffer whose event has passed; takes the buffer back."""
        k = self._topk
        values = buffer.result.numpy()[:count].copy()
        with self._lock:
            self._buffers[len(buffer.result)].append(buffer)
        positions, input_ids = (values[:, 2 * k + i * CHUNK_SIZE :][:, :CHUNK_SIZE].astype(np.int64) for i in range(2))
        return Features(values[:, :k], values[:, k : 2 * k].astype(np.uint16), positions, input_ids)


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
    """Pinned memory for one launch, of up to `capacity` chunks."""

    def __init__(self, capacity: int, width: int) -> None:
        self.refs = torch.empty(capacity, 4, dtype=torch.int64, pin_memory=True)
        self.result = torch.empty(capacity, width, dtype=torch.int32, pin_memory=True)
        self.event = torch.cuda.Event()


class _Reduction:
    """A reduction under way; `buffer` is another's once this one was read."""

    def __init__(self, ring: DeviceRing, buffer: _Buffer, count: int) -> None:
        self.writes_since = 0
        self.buffer = buffer
        self._ring = ring
        self._count = count
        self._read = False

    def done(self) -> bool:
        return self._read or self.buffer.event.query()

    def features(self) -> Features:
        self.buffer.event.synchronize()
        self._read = True
        return self._ring.read(self.buffer, self._count)
