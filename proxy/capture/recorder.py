"""Captures the hidden states that proofs are made of: the one stateful object in a worker.

Two threads use it. The engine's thread calls `register`, `record` and `finished` around each forward pass and never
waits; the side channel's thread calls `encode`, `finalize`, `discard` and `expire`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toploc.errors import ProofUnavailable
from toploc.scheme import CHUNK_SIZE

from ..channel.tag import Key, Tag
from .batch import Batch, Reducing, Slots
from .chunks import Capture, Proven, proofs_of
from .ring import ChunkRefs
from .weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from .ring import Ring
    from .step import Step

EXHAUSTED: Final = "capture_slots_exhausted", "more requests in flight than the server keeps hidden states of"
ASLEEP: Final = "asleep", "the engine went to sleep, and its memory with it, before the proofs were asked for"
"""Codes and messages of captures that were given up."""

MAX_REFUSALS: Final = 4096
"""Bounds what requests beyond the slots can leave behind when nobody asks for their proofs."""

UNREAD_SECONDS: Final = 5.0
"""An answer's proofs are asked for within milliseconds of its end, or, in a stream, when its client has read up to
there. Stops clients that do not read from taking every slot, and with them everybody else's proofs."""

BELOW: Final = 1 << 63
"""Negative numbers, read as unsigned ones of 64 bits."""

DRAIN_SECONDS: Final = 2.0
"""Before the engine sleeps, for the proofs of answers that are over to be asked for."""


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
        # Positions by which a step's first may still turn out too high.
        self._unsettled = 2 * draft_tokens
        self._lock = threading.Lock()
        self._free = list(range(ring.num_slots))
        self._slots = Slots(ring.num_slots)
        self._epoch = 0
        self._captures: dict[Key, Capture] = {}
        self._refused: dict[Key, ProofUnavailable] = {}
        self._by_request: dict[str, Capture] = {}
        self._batch: Batch | None = None
        self._reducing: deque[Reducing] = deque()
        self._encoding = threading.Lock()
        # Held while rows are read, which are not there while the engine sleeps.
        self._awake = threading.Lock()
        self.weights_version = 0
        self._straddling: set[Capture] = set()

    def weights_changed(self) -> None:
        """Steps from here on run under other weights than those before."""
        with self._lock:
            self.weights_version += 1
            for capture in self._by_request.values():
                capture.weights.change(self.weights_version)
                self._straddling.add(capture)

    def sleep(self) -> None:
        """The rows are about to go: those whose proofs nobody asks for within `DRAIN_SECONDS` are given up."""
        until = time.monotonic() + DRAIN_SECONDS
        while self._captures and time.monotonic() < until:
            time.sleep(0.01)
        with self._awake, self._encoding, self._lock:
            for key in [*self._captures]:
                self._refuse(key, ASLEEP)
                self._release(self._captures.pop(key))
            self._reducing.clear()

    def wake(self) -> None:
        """Memory is there again, with whatever in it."""
        with self._awake:
            self._ring.forget()

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
            unread = self._longest_unread()
            self._refuse(key if unread is None else unread.key)
            if unread is None:
                return None
            self._release(self._captures.pop(unread.key))
        self._epoch += 1
        capture = Capture(key, start, self._free.pop(), self._epoch, Weights(self.weights_version, start))
        self._slots.open(capture)
        self._captures[key] = capture
        return capture

    def _longest_unread(self) -> Capture | None:
        unread = [capture for capture in self._captures.values() if capture.abandoned(UNREAD_SECONDS)]
        return min(unread, key=lambda capture: capture.finished_at or 0.0, default=None)

    def _refuse(self, key: Key, why: tuple[str, str] = EXHAUSTED) -> None:
        while len(self._refused) >= MAX_REFUSALS:
            del self._refused[next(iter(self._refused))]
        self._refused[key] = ProofUnavailable(*why)

    def record(self, step: Step) -> None:
        """Takes the rows of a forward pass, after it was launched and before its sampling."""
        if not self._by_request:
            return
        with self._lock:
            batch = self._current_batch(step.request_ids)
            if batch is not None and self._straddling:
                self._note_weights(step, batch)
            if batch is not None and not self._record_decoding(step, batch):
                self._record(step, batch)

    def _note_weights(self, step: Step, batch: Batch) -> None:
        """Rows of chunks that are reduced stay as they are. With drafts, positions may turn out lower."""
        for member, capture in enumerate(batch.captures):
            if capture in self._straddling:
                first = int(step.first_positions[batch.members[member]]) - self._unsettled
                capture.weights.computed(max(first, int(batch.floors[member])))

    def _current_batch(self, request_ids: Sequence[str]) -> Batch | None:
        if self._batch is None or self._batch.request_ids != request_ids:
            self._batch = Batch.of(request_ids, self._by_request, self._slots)
        return self._batch if self._batch.captures else None

    def _record_decoding(self, step: Step, batch: Batch) -> bool:
        """What most steps are, in a few operations: one row of each request. False if it is another."""
        if self._draft_tokens or not step.one_row_each:
            return False
        first = step.first_positions if batch.is_whole else step.first_positions[batch.members]
        ahead = first - batch.floors
        # As unsigned numbers, positions below the floor are beyond any other.
        most = int(ahead.view(np.uint64).max())
        if most >= BELOW:
            return False
        # The same object as in the step before, which the ring has read.
        self._ring.write(step, batch.one_row_each)
        if most + 1 >= CHUNK_SIZE + self._ring.lag:
            self._reduce_ring(batch, first.astype(np.int64) + 1, self._ring.lag)
        return True

    def _record(self, step: Step, batch: Batch) -> None:
        """Any step. All arrays are int64 [members], a number for each captured request of the batch.

        1. Which positions the step has, `first` up to `end`, and which of them are wanted: those from `wanted` on,
           `counts` many. A position plus `base` is its row in the step.
        2. How many of the wanted rows go into the ring, `heads`; all but those of a prefill that fill whole chunks.
           Up to which position, `settled`, no later step can change a row of the ring.
        3. The ring takes them, and reduces the chunks below `settled`.
        4. What is left of a prefill is reduced where it lies.
        """
        first = step.first_positions[batch.members].astype(np.int64)  # 1
        end = first + step.num_rows[batch.members]
        wanted = np.maximum(first, batch.floors)
        counts = np.maximum(end - wanted, 0)
        base = step.offsets[batch.members] - first

        # Only prefill runs more rows of a request than a step of speculative decoding, and its positions are exact.
        # Its rows may be more than the ring holds. Indices of such members, int64 [at most members].
        wide = np.flatnonzero(counts > self._draft_tokens + 1)  # 2
        heads = counts
        settled = end if self._draft_tokens == 0 else first - self._unsettled
        if wide.size:
            # Up to the end of a chunk that is already begun in the ring.
            into_chunk = (wanted[wide] - batch.starts[wide]) % CHUNK_SIZE
            heads, settled = counts.copy(), settled.copy()
            heads[wide] = np.minimum(counts[wide], -into_chunk % CHUNK_SIZE)
            settled[wide] = wanted[wide] + heads[wide]
        self._ring.write(step, batch.rows(base + wanted, heads))  # 3
        # A prefill's next chunk goes on where this one ended.
        self._reduce_ring(batch, settled, lag=0 if wide.size else self._ring.lag)
        if wide.size:
            self._record_prefill(step, batch, wide, base, settled, end)  # 4

    def _reduce_ring(self, batch: Batch, settled: npt.NDArray[np.int64], lag: int) -> None:
        """Reduces the chunks of the ring that end at or below `settled`, all in one go, once one of them is `lag` rows
        behind. `settled`: a position of each member, int64 [members]."""
        ahead = settled - batch.floors
        if ahead.max() >= CHUNK_SIZE + lag:
            due = np.maximum(ahead // CHUNK_SIZE, 0)
            refs = batch.chunks(due)
            self._reducing.append(Reducing(self._ring.reduce(refs), refs, batch.advance(due)))

    def _record_prefill(
        self,
        step: Step,
        batch: Batch,
        wide: npt.NDArray[np.int64],
        base: npt.NDArray[np.int64],
        position: npt.NDArray[np.int64],
        end: npt.NDArray[np.int64],
    ) -> None:
        """Reduces the whole chunks among a prefill's rows from `position` on where they lie, and stores the rest.

        Args:
            wide: indices of the members that prefill, int64 [at most members].
            base: added to a position gives its row in the step, int64 [members].
            position, end: the first position that is not in the ring yet, and the one after the step's last, int64
                [members].
        """
        due = np.zeros_like(end)
        first_rows: list[int] = []
        for i in map(int, wide):
            if batch.floors[i] == position[i] and end[i] - position[i] >= CHUNK_SIZE:
                due[i] = (end[i] - position[i]) // CHUNK_SIZE
                first = int(base[i] + position[i])
                first_rows += range(first, first + int(due[i]) * CHUNK_SIZE, CHUNK_SIZE)
        if first_rows:
            refs = batch.chunks(due)
            self._reducing.append(Reducing(self._ring.reduce_step(step, first_rows), refs, batch.advance(due)))
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
                    self._straddling.discard(capture)
                    self._batch = None

    def encode(self) -> None:
        """Encodes the chunks of reductions that are over. The end of an answer would: now and then, to bound what waits
        for it."""
        with self._awake, self._encoding:
            while self._reducing and self._reducing[0].reduction.done():
                self._reducing.popleft().encode()

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
        return outcome.proofs

    def finalize_all(self, wanted: Sequence[tuple[Key, Sequence[int]]]) -> list[Proven | ProofUnavailable]:
        """`finalize` for many answers, reduced together; what it would raise stands in place of the proofs."""
        try:
            with self._awake:
                with self._lock:
                    claims, rest = self._claim(wanted)
                # A token is out only after the step that wrote its row.
                reducing = Reducing(self._ring.reduce(rest, complete=True), rest, []) if len(rest) else None
                return self._prove(claims, reducing, wanted)
        finally:
            for key, _ in wanted:
                self.discard(key)

    def _claim(self, wanted: Sequence[tuple[Key, Sequence[int]]]) -> tuple[list[_Claim | ProofUnavailable], ChunkRefs]:
        """Each answer's claim, and all their chunks whose reduction has not begun, in the answers' order."""
        claims: list[_Claim | ProofUnavailable] = []
        rest: list[tuple[int, int, int, int]] = []
        for key, inputs in wanted:
            capture = self._captures.get(key)
            if capture is None:
                unknown = ProofUnavailable("capture_unknown", "no hidden states were captured for this answer")
                claims.append(self._refused.pop(key, unknown))
                continue
            # Asked for, so no longer to be given up.
            capture.finished_at = None
            whole = min(len(inputs) // CHUNK_SIZE, self._slots.num_reduced(capture))
            starts = range(whole * CHUNK_SIZE, len(inputs), CHUNK_SIZE)
            rows = [min(CHUNK_SIZE, len(inputs) - at) for at in starts]
            rest += [(capture.slot, capture.epoch, capture.start + at, n) for at, n in zip(starts, rows, strict=True)]
            claims.append(_Claim(capture, whole, len(starts)))
        return claims, ChunkRefs(*np.array(rest, dtype=np.int64).reshape(-1, 4).T)

    def _prove(
        self,
        claims: Sequence[_Claim | ProofUnavailable],
        rest: Reducing | None,
        wanted: Sequence[tuple[Key, Sequence[int]]],
    ) -> list[Proven | ProofUnavailable]:
        with self._encoding:
            for claim in claims:
                # Not the newest reductions, which wait for a step that runs now: an answer that is over has none.
                while isinstance(claim, _Claim) and len(claim.capture.chunks) < claim.whole:
                    self._reducing.popleft().encode()
        last = iter([] if rest is None else rest.chunks())
        outcomes: list[Proven | ProofUnavailable] = []
        for claim, (_, inputs) in zip(claims, wanted, strict=True):
            if isinstance(claim, ProofUnavailable):
                outcomes.append(claim)
                continue
            capture = claim.capture
            chunks = [*capture.chunks[: claim.whole], *islice(last, claim.rest)]
            try:
                proofs = proofs_of(chunks, capture.start, inputs)
                outcomes.append(Proven(proofs, capture.weights.spans(len(inputs))))
            except ProofUnavailable as error:
                outcomes.append(error)
        return outcomes

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
        self._straddling.discard(capture)
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


@dataclass(frozen=True, slots=True)
class _Claim:
    """An answer's chunks: `whole` that were reduced while it was generated, and `rest` that are reduced at its end."""

    capture: Capture
    whole: int
    rest: int
