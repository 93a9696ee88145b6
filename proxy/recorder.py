"""Captures the hidden states that proofs are made of: the one stateful object in a worker.

Two threads use it. The engine's thread calls `register`, `record` and `finished` around each forward pass and never
waits; the side channel's thread calls `finalize`, `discard` and `expire`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from toploc.errors import InvalidActivations, ProofUnavailable
from toploc.proof import encode_chunks
from toploc.protocol import CHUNK_SIZE

from .capture import Capture, Key, check_rows
from .ring import ChunkRef, Rows
from .tag import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from .ring import Reduction, Ring
    from .runners.step import Step


# Bounds what requests beyond the slots can leave behind when nobody asks for their proofs.
MAX_REFUSALS = 4096


class Recorder:
    """Keeps, for every tagged request, the rows from its start position on, chunk by chunk.

    Args:
        ring: where rows wait until their chunk is complete.
        secret: key of the tags' MAC.
        draft_tokens: most tokens a step may speculate per request (0 without speculative decoding). With drafts, a
            step's positions are upper bounds that lag by what the two steps before it may still reject, so a chunk
            is reduced only once the bound is that far past it.
    """

    def __init__(self, ring: Ring, secret: str, *, draft_tokens: int = 0) -> None:
        self._ring = ring
        self._secret = secret
        self._draft_tokens = draft_tokens
        self._unsettled = 2 * draft_tokens
        self._lock = threading.Lock()
        self._free = list(range(ring.num_slots))
        self._epoch = 0
        self._captures: dict[Key, Capture] = {}
        self._refused: dict[Key, ProofUnavailable] = {}
        self._by_request: dict[str, Capture] = {}
        self._batch: _Batch | None = None

    def register(self, request_id: str, extra_args: Mapping[str, Any] | None, prompt_len: int | None) -> None:
        """Starts capturing a request that the engine is about to run, if it carries a tag of ours.

        A request that comes back after preemption keeps its capture: rows from before it stay valid.
        """
        tag = Tag.open(extra_args, self._secret)
        if tag is None or prompt_len is None:
            return
        child = tag.child_index(request_id)
        if child is None:
            return
        key = Key(tag.nonce, child)
        with self._lock:
            capture = self._captures.get(key)
            # Refused once is refused for good: a slot that came free since would lack the first rows.
            if capture is None and key not in self._refused:
                capture = self._open(key, prompt_len - 1 if tag.start is None else tag.start)
            if capture is not None:
                capture.request_id = request_id
                self._by_request[request_id] = capture
                self._batch = None

    def _open(self, key: Key, start: int) -> Capture | None:
        if not self._free:
            while len(self._refused) >= MAX_REFUSALS:
                del self._refused[next(iter(self._refused))]
            self._refused[key] = ProofUnavailable(
                "capture_slots_exhausted", "more requests in flight than the server keeps hidden states of"
            )
            return None
        self._epoch += 1
        capture = Capture(key, start, self._free.pop(), self._epoch, floor=start)
        self._captures[key] = capture
        return capture

    def record(self, step: Step) -> None:
        """Takes the rows of a forward pass, after it was launched and before its sampling."""
        if not self._by_request:
            return
        with self._lock:
            batch = self._current_batch(step.request_ids)
            if batch is not None:
                self._record(step, batch)

    def _current_batch(self, request_ids: Sequence[str]) -> _Batch | None:
        if self._batch is None or self._batch.request_ids != request_ids:
            self._batch = _Batch.of(request_ids, self._by_request)
        return self._batch if self._batch.captures else None

    def _record(self, step: Step, batch: _Batch) -> None:
        first = step.first_positions[batch.members]
        end = first + step.num_rows[batch.members]
        wanted = np.maximum(first, batch.floors)
        counts = np.maximum(end - wanted, 0)
        base = step.offsets[batch.members] - first

        # Only prefill runs more rows of a request than a step of speculative decoding, and its positions are exact.
        # Its rows may be more than the ring holds.
        wide = np.flatnonzero(counts > self._draft_tokens + 1)
        heads = counts
        settled = end if self._draft_tokens == 0 else first - self._unsettled
        if wide.size:
            # Up to the end of a chunk that is already begun in the ring.
            into_chunk = (wanted[wide] - batch.starts[wide]) % CHUNK_SIZE
            heads, settled = counts.copy(), settled.copy()
            heads[wide] = np.minimum(counts[wide], -into_chunk % CHUNK_SIZE)
            settled[wide] = wanted[wide] + heads[wide]
        self._ring.write(step, batch.rows(base + wanted, heads))
        self._reduce_ring(batch, settled)
        if wide.size:
            self._record_prefill(step, batch, wide, base, settled, end)

    def _reduce_ring(self, batch: _Batch, settled: npt.NDArray[np.int64]) -> None:
        """Reduces the chunks of the ring that end at or below `settled`, all in one go."""
        due = (settled - batch.floors) // CHUNK_SIZE
        members = [int(i) for i in np.flatnonzero(due > 0)]
        chunks = []
        for i in members:
            capture = batch.captures[i]
            positions = range(capture.floor, capture.floor + int(due[i]) * CHUNK_SIZE, CHUNK_SIZE)
            chunks += [ChunkRef(capture.slot, capture.epoch, position, CHUNK_SIZE) for position in positions]
        if chunks:
            batch.advance(members, due, self._ring.reduce(chunks))

    def _record_prefill(
        self,
        step: Step,
        batch: _Batch,
        wide: npt.NDArray[np.int64],
        base: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
        end: npt.NDArray[np.int64],
    ) -> None:
        """Reduces the whole chunks among a prefill's rows from `position` on where they lie, and stores the rest."""
        due = np.zeros_like(end)
        members: list[int] = []
        first_rows: list[int] = []
        for i in map(int, wide):
            if batch.captures[i].floor == position[i] and end[i] - position[i] >= CHUNK_SIZE:
                due[i] = (end[i] - position[i]) // CHUNK_SIZE
                members.append(i)
                first = int(base[i] + position[i])
                first_rows += range(first, first + int(due[i]) * CHUNK_SIZE, CHUNK_SIZE)
        if first_rows:
            batch.advance(members, due, self._ring.reduce_step(step, first_rows, CHUNK_SIZE))
        rest = np.zeros_like(end)
        rest[wide] = (end - position - due * CHUNK_SIZE)[wide]
        self._ring.write(step, batch.rows(base + end - rest, rest), after_reductions=True)

    def finished(self, request_ids: Iterable[str]) -> None:
        """The engine is done with these requests; their rows stay until finalize, discard or the time limit,
        since the notice may come before or after either."""
        if not self._by_request:
            return
        with self._lock:
            for request_id in request_ids:
                capture = self._by_request.pop(request_id, None)
                if capture is not None:
                    capture.finish()
                    self._batch = None

    def finalize(self, key: Key, inputs: Sequence[int]) -> list[bytes]:
        """Proofs of the tokens generated from `inputs`, one per chunk; releases the capture.

        Args:
            inputs: input tokens of the captured rows, the first at the capture's start position.

        Raises:
            ProofUnavailable: the rows are not there or belong to other tokens.
        """
        [outcome] = self.finalize_all([(key, inputs)])
        if isinstance(outcome, ProofUnavailable):
            raise outcome
        return outcome

    def finalize_all(self, wanted: Sequence[tuple[Key, Sequence[int]]]) -> list[list[bytes] | ProofUnavailable]:
        """`finalize` for many answers, reduced together; what it would raise stands in place of the proofs."""
        try:
            with self._lock:
                claims = self._claim(wanted)
            return [
                claim if isinstance(claim, ProofUnavailable) else _prove(*claim, inputs)
                for claim, (_, inputs) in zip(claims, wanted, strict=True)
            ]
        finally:
            for key, _ in wanted:
                self.discard(key)

    def _claim(
        self, wanted: Sequence[tuple[Key, Sequence[int]]]
    ) -> list[ProofUnavailable | tuple[Capture, list[tuple[Reduction, int]]]]:
        """Each answer's chunks: those reduced already, and the rest, whose reduction is started here for all."""
        claims: list[ProofUnavailable | tuple[Capture, list[tuple[Reduction, int]]]] = []
        rest: list[ChunkRef] = []
        unreduced: list[tuple[list[tuple[Reduction, int]], int]] = []
        for key, inputs in wanted:
            capture = self._captures.get(key)
            if capture is None:
                unknown = ProofUnavailable("capture_unknown", "no hidden states were captured for this answer")
                claims.append(self._refused.pop(key, unknown))
                continue
            whole = min(len(inputs) // CHUNK_SIZE, len(capture.reductions))
            chunks = capture.reductions[:whole]
            claims.append((capture, chunks))
            for at in range(whole * CHUNK_SIZE, len(inputs), CHUNK_SIZE):
                rows = min(CHUNK_SIZE, len(inputs) - at)
                unreduced.append((chunks, len(rest)))
                rest.append(ChunkRef(capture.slot, capture.epoch, capture.start + at, rows))
        if rest:
            # A token is out only after the step that wrote its row.
            reduction = self._ring.reduce(rest, complete=True)
            for chunks, place in unreduced:
                chunks.append((reduction, place))
        return claims

    def discard(self, key: Key) -> None:
        """Forgets a capture, wherever it stands."""
        with self._lock:
            self._refused.pop(key, None)
            capture = self._captures.pop(key, None)
            if capture is not None:
                self._release(capture)

    def _release(self, capture: Capture) -> None:
        if self._by_request.get(capture.request_id) is capture:
            del self._by_request[capture.request_id]
            self._batch = None
        self._free.append(capture.slot)

    def expire(self, ttl: float) -> int:
        """Forgets captures that nobody asked about for `ttl` seconds after the engine was done; returns how many."""
        with self._lock:
            abandoned = [key for key, capture in self._captures.items() if capture.abandoned(ttl)]
            for key in abandoned:
                self._release(self._captures.pop(key))
        return len(abandoned)

    @property
    def slots_in_use(self) -> int:
        """Captures held now."""
        return len(self._captures)


class _Batch:
    """The captured requests of a batch as arrays, kept while the batch's requests stay the same."""

    def __init__(self, request_ids: list[str], members: list[int], captures: list[Capture]) -> None:
        self.request_ids = request_ids
        self.members = np.array(members, dtype=np.int64)
        self.captures = captures
        self.starts = np.array([capture.start for capture in captures], dtype=np.int64)
        self.floors = np.array([capture.floor for capture in captures], dtype=np.int64)
        self._slots = np.array([capture.slot for capture in captures], dtype=np.int64)
        self._epochs = np.array([capture.epoch for capture in captures], dtype=np.int64)

    @classmethod
    def of(cls, request_ids: Sequence[str], by_request: Mapping[str, Capture]) -> _Batch:
        found = [(i, by_request[r]) for i, r in enumerate(request_ids) if r in by_request]
        return cls(list(request_ids), [i for i, _ in found], [capture for _, capture in found])

    def rows(self, first_rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Rows:
        """`counts[i]` rows of each member from `first_rows[i]` on."""
        which = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Rows(first_rows[which] + within, self._slots[which], self._epochs[which])

    def advance(self, members: Sequence[int], chunks: npt.NDArray[np.int64], reduction: Reduction) -> None:
        """`chunks[i]` more chunks of each of `members` are in `reduction`, one member's after another's."""
        place = 0
        for i in members:
            capture, count = self.captures[i], int(chunks[i])
            capture.reductions += [(reduction, place + k) for k in range(count)]
            capture.floor += count * CHUNK_SIZE
            self.floors[i] = capture.floor
            place += count


def _prove(
    capture: Capture, chunks: Sequence[tuple[Reduction, int]], inputs: Sequence[int]
) -> list[bytes] | ProofUnavailable:
    if not chunks:
        return []
    features = [reduction.features()[place] for reduction, place in chunks]
    try:
        check_rows(features, capture.start, inputs)
        return encode_chunks(
            np.stack([chunk.indices for chunk in features]), np.stack([chunk.patterns for chunk in features])
        )
    except ProofUnavailable as error:
        return error
    except InvalidActivations as error:
        return ProofUnavailable("rows_invalid", str(error))
