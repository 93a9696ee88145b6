"""The recorder against a model of vLLM that knows the true hidden state of every position.

Every proof must be right to the byte, or refused where the recorder says that it cannot have the rows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import (
    HIDDEN,
    ONES,
    SECRET,
    STATES,
    code_of,
    make_recorder,
    make_step,
    patterns,
    proofs_of,
    record,
    register,
)
from toploc_proxy.capture.host_ring import HostRing
from toploc_proxy.capture.recorder import MAX_REFUSALS, UNREAD_SECONDS, Recorder
from toploc_proxy.capture.sizes import ring_rows
from toploc_proxy.capture.step import Step
from toploc_proxy.channel.tag import EXTRA_ARG, Key, Tag

from toploc.errors import ProofUnavailable
from toploc.scheme import CHUNK_SIZE, TOPK

# Two tokens only, so that comparing tokens hides few misplaced rows.
VOCABULARY = 2
# Of the prefix cache.
BLOCK = 16


@dataclass(eq=False)
class Request:
    """One request of the engine. `tokens` and `states` go on past the end, for steps that run too far.

    Attributes:
        num_rows: how many rows the proofs are of.
        computed, known: positions whose true rows were computed; tokens that are there, prompt included.
        rejected: drafts that the last two steps rejected, the last first.
        overrun: steps that the engine still runs it once the client has the last token.
        finalize_in, notice_in: steps until the front end asks, and until the engine's notice.
        highest: highest position of any row, drafts included.
        refused: there was no slot for it.
    """

    id: str
    key: Key
    tag: Tag
    prompt_len: int
    num_rows: int
    tokens: np.ndarray
    states: np.ndarray
    overrun: int
    finalize_in: int
    notice_in: int
    discard_at: int | None
    computed: int = 0
    known: int = 0
    rejected: tuple[int, int] = (0, 0)
    highest: int = -1
    registered: bool = False
    refused: bool = False
    claimed: bool = False

    @property
    def verifies(self) -> bool:
        return self.tag.start is not None

    @property
    def start(self) -> int:
        return self.prompt_len - 1 if self.tag.start is None else self.tag.start

    @property
    def inputs(self) -> list[int]:
        return self.tokens[self.start : self.start + self.num_rows].tolist()

    @property
    def answered(self) -> bool:
        """Whether the client has the answer's last token."""
        return self.known > self.start + self.num_rows

    @property
    def left_ring(self) -> bool:
        """Whether the engine ran so far past the end that the ring lost rows of the last, shorter chunk."""
        shorter = self.num_rows % CHUNK_SIZE
        return shorter > 0 and self.highest >= self.start + self.num_rows - shorter + self.ring_rows

    ring_rows: int = 0


class Engine:
    """Runs requests in random order and checks every proof the recorder gives.

    Args:
        draft_tokens: most drafts per request and step.
        lag: how many steps' rejections the scheduler has not heard of when it names a step's first positions.
        most_overrun: most steps that a request runs on after its end.
        resends: whether requests are sent anew after preemption, as to vLLM's second runner.
        discards: whether clients disconnect.
        sloppy: whether the front end asks for proofs of wrong tokens now and then.
    """

    def __init__(
        self,
        random: Random,
        *,
        num_slots: int,
        draft_tokens: int = 0,
        lag: int = 0,
        most_overrun: int = 1,
        resends: bool = False,
        discards: bool = False,
        sloppy: bool = False,
        front_end: ThreadPoolExecutor | None = None,
    ) -> None:
        self.random = random
        self.rng = np.random.default_rng(random.getrandbits(64))
        self.num_slots = num_slots
        self.ring = HostRing(num_slots, ring_rows(draft_tokens), HIDDEN, torch.bfloat16, TOPK)
        self.ring.lag = random.choice([0, 8])
        self.recorder = Recorder(self.ring, SECRET, draft_tokens=draft_tokens)
        self.draft_tokens = draft_tokens
        self.lag = lag
        self.most_overrun = most_overrun
        self.resends = resends
        self.discards = discards
        self.sloppy = sloppy
        self.front_end = front_end
        self.requests: list[Request] = []
        self.asked: list[object] = []
        self.outcomes: dict[str, int] = {}

    def run(self, num_requests: int) -> None:
        """From the first arrival until nothing is left of any request."""
        ids = iter(range(10**6))
        free_ids: list[str] = []
        while num_requests > 0 or self.requests:
            if num_requests > 0 and self.random.random() < 0.3:
                request_id = free_ids.pop() if free_ids and self.random.random() < 0.7 else f"id_{next(ids)}"
                self.requests += self._arrive(request_id)
                num_requests -= 1
            self._step()
            for request in list(self.requests):
                if self._leaves(request):
                    self.requests.remove(request)
                    if request.tag.children == 1:
                        free_ids.append(request.id)
        for future in self.asked:
            future.result()

    def _arrive(self, request_id: str) -> list[Request]:
        random, most = self.random, self.most_overrun
        prompt_len = random.choice([1, 2, random.randint(1, 40), random.randint(1, 300)])
        if random.random() < 0.25:
            tag = Tag.new(start=random.choice([0, prompt_len - 1, random.randint(0, prompt_len - 1)]))
            num_rows = prompt_len - tag.start
        else:
            tag = Tag.new(children=random.choice([1, 1, 1, 2]))
            num_rows = random.choice([1, 31, 32, 33, 64, 65, random.randint(1, 150)])
        past_end = (most + 2) * (self.draft_tokens + 1)
        tokens = self.rng.integers(0, VOCABULARY, prompt_len + num_rows + past_end)
        requests = []
        for child in range(tag.children):
            leaves = self.discards and random.random() < 0.3
            request = Request(
                id=request_id if tag.children == 1 else f"{child}_{request_id}",
                key=Key(tag.nonce, child),
                tag=tag,
                prompt_len=prompt_len,
                num_rows=num_rows,
                tokens=tokens.copy(),
                states=patterns(self.rng, len(tokens)),
                overrun=random.choice([0, 1, random.randint(0, most), most]),
                finalize_in=random.choice([0, random.randint(0, 3), random.randint(0, most), most + 3]),
                notice_in=random.choice([0, 0, 1, 5]),
                discard_at=random.randint(0, prompt_len + num_rows) if leaves else None,
                known=prompt_len,
                ring_rows=self.ring.num_rows,
            )
            request.tokens[prompt_len:] = self.rng.integers(0, VOCABULARY, len(tokens) - prompt_len)
            request.computed = self._cached(request, prompt_len - 1)
            requests.append(request)
        return requests

    def _cached(self, request: Request, at_most: int) -> int:
        """Positions that a prefix cache holds; it is not read for verification."""
        if request.verifies:
            return 0
        return BLOCK * self.random.choice([0, at_most // BLOCK, self.random.randint(0, at_most // BLOCK)])

    def _register(self, request: Request) -> None:
        if not request.registered:
            request.registered = True
            request.refused = self.recorder.slots_in_use == self.num_slots
        extra_args = {EXTRA_ARG: request.tag.seal(SECRET)}
        self.recorder.register(request.id, extra_args, request.prompt_len)

    def _step(self) -> None:
        random = self.random
        batch = [r for r in self.requests if (not r.answered or r.overrun > 0) and random.random() < 0.8]
        random.shuffle(batch)
        rows = []
        for request in batch:
            if not request.registered:
                self._register(request)
            elif random.random() < 0.03:
                request.computed = self._cached(request, min(request.computed, request.known - 1))
                request.rejected = (0, 0)
                if self.resends:
                    self._register(request)
            rows.append((request.id, *self._forward(request)))
        for i in range(random.randint(0, 2)):
            n = random.randint(1, 4)
            rows.append((f"untagged-{i}", i, np.arange(n), np.zeros(n, dtype=np.int64), patterns(self.rng, n)))
        random.shuffle(rows)
        if rows:
            n = random.randint(1, 4)
            padding = ("", 0, np.arange(n), np.zeros(n, dtype=np.int64), patterns(self.rng, n))
            self.recorder.record(make_step([*rows, padding]))
        if random.random() < 0.3:
            self.recorder.encode()

    def _forward(self, request: Request) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Claimed first position, true positions, input ids and states of a request's rows in a step."""
        request.overrun -= request.answered
        first = request.computed
        remaining = request.known - first
        claimed = first
        if remaining > 1 or request.known == request.prompt_len:
            accepted = n = self.random.choice([remaining, self.random.randint(1, remaining)])
            request.rejected = (0, 0)
        else:
            drafts = self.random.randint(0, self.draft_tokens)
            n, accepted = 1 + drafts, 1 + self.random.randint(0, drafts)
            claimed += sum(request.rejected[: self.lag])
            request.rejected = (n - accepted, request.rejected[0])
        positions = np.arange(first, first + n)
        ids, states = request.tokens[positions], request.states[positions]
        if accepted < n:
            # A rejected draft and what follows it, of which only the first is sure to be another token.
            ids[accepted] = 1 - ids[accepted]
            ids[accepted + 1 :] = self.rng.integers(0, VOCABULARY, n - accepted - 1)
            states[accepted:] = patterns(self.rng, n - accepted)
        request.computed += accepted
        if request.computed >= request.known:
            request.known = request.computed + 1
        request.highest = max(request.highest, first + n - 1)
        return claimed, positions, ids, states

    def _leaves(self, request: Request) -> bool:
        """Moves a request on after a step; whether nothing more will happen to it."""
        if request.discard_at is not None and request.registered and request.computed >= request.discard_at:
            self.recorder.discard(request.key)
            request.claimed, request.discard_at = True, None
            request.num_rows = min(request.num_rows, max(1, request.known - request.start))
        if not request.answered:
            return False
        request.discard_at = None
        if not request.claimed and request.finalize_in == 0:
            request.claimed = True
            self._finalize(request)
        request.finalize_in -= 1
        if request.overrun <= 0:
            if request.notice_in == 0:
                self.recorder.finished([request.id])
            request.notice_in -= 1
        return request.claimed and request.notice_in < 0

    def _finalize(self, request: Request) -> None:
        sloppy = self.sloppy and self.random.random() < 0.2
        if self.front_end is None:
            self._ask(request, sloppy=sloppy)
        else:
            self.asked.append(self.front_end.submit(self._ask, request, sloppy=sloppy))

    def _ask(self, request: Request, *, sloppy: bool) -> None:
        inputs = request.inputs
        expected = None if request.refused or sloppy else proofs_of(request.states[request.start :][: request.num_rows])
        allowed = {"rows_missing"} if request.left_ring else set()
        if request.refused:
            allowed = {"capture_slots_exhausted"}
        elif sloppy:
            at = self.random.randrange(len(inputs))
            inputs[at] = 1 - inputs[at]
            allowed.add("rows_mismatch")
        try:
            proofs, outcome = self.recorder.finalize(request.key, inputs), "proofs"
        except ProofUnavailable as error:
            proofs, outcome = None, error.code
        assert proofs == expected if outcome == "proofs" else outcome in allowed
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def assert_nothing_held(engine: Engine) -> None:
    recorder = engine.recorder
    # A request that is sent anew after its discard begins a capture that only time ends.
    assert engine.resends or recorder.slots_in_use == 0
    recorder.expire(ttl=-1)
    assert recorder.slots_in_use == 0
    for i in range(engine.num_slots):
        recorder.register(f"new-{i}", {EXTRA_ARG: Tag.new().seal(SECRET)}, 1)
    assert recorder.slots_in_use == engine.num_slots


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 12), st.booleans(), st.booleans())
def test_proofs_are_right(seed: int, num_slots: int, resends: bool, discards: bool) -> None:
    engine = Engine(Random(seed), num_slots=num_slots, resends=resends, discards=discards, sloppy=True)
    engine.run(12)
    assert_nothing_held(engine)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3, 5, 8, 16]), st.integers(0, 2), st.booleans())
def test_proofs_are_right_with_drafts(seed: int, draft_tokens: int, lag: int, resends: bool) -> None:
    engine = Engine(Random(seed), num_slots=12, draft_tokens=draft_tokens, lag=lag, resends=resends)
    engine.run(8)
    assert_nothing_held(engine)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0, 0, 1, 4]), st.integers(0, 2))
def test_proofs_are_right_or_refused_after_an_overrun(seed: int, draft_tokens: int, lag: int) -> None:
    engine = Engine(Random(seed), num_slots=12, draft_tokens=draft_tokens, lag=lag, most_overrun=90)
    engine.run(6)
    assert_nothing_held(engine)


def test_schedules_reach_what_they_are_for() -> None:
    """Else the properties above would hold of nothing."""
    outcomes: dict[str, int] = {}
    for seed in range(8):
        engine = Engine(Random(seed), num_slots=8, most_overrun=90, sloppy=True)
        engine.run(12)
        for outcome, count in engine.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    assert set(outcomes) == {"proofs", "rows_missing", "rows_mismatch", "capture_slots_exhausted"}
    assert outcomes["proofs"] > sum(outcomes.values()) / 4


def test_proofs_are_right_while_another_thread_asks() -> None:
    with ThreadPoolExecutor(2) as front_end:
        for seed in range(6):
            # Slots enough for all: whether one is free as a request arrives is the other thread's race to decide.
            engine = Engine(Random(seed), num_slots=64, most_overrun=8, discards=True, front_end=front_end)
            engine.run(30)
            assert_nothing_held(engine)
            assert engine.outcomes["proofs"] > 15


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 3000), st.sampled_from([5, 40, 512, 4096]), st.sampled_from([0, 3]))
def test_verification_of_a_long_answer(seed: int, length: int, budget: int, draft_tokens: int) -> None:
    """A prefill in pieces of any size, started again from nothing now and then."""
    start = Random(seed).randrange(length)
    random, rng = Random(seed), np.random.default_rng(seed)
    recorder = make_recorder(draft_tokens=draft_tokens)
    tag = register(recorder, "verify", length, start=start)
    ids, states = rng.integers(0, VOCABULARY, length), patterns(rng, length)
    computed, restarts = 0, 2
    while computed < length:
        end = min(length, computed + random.randint(1, budget))
        record(recorder, "verify", computed, ids[computed:end], states[computed:end])
        again = restarts > 0 and random.random() < 0.1
        computed, restarts = (0, restarts - 1) if again else (end, restarts)
    assert recorder.finalize(Key(tag.nonce, 0), ids[start:].tolist()) == proofs_of(states[start:])


@pytest.mark.parametrize("length", [1, 31, 32, 33])
def test_answer_in_one_prefill(length: int) -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:length], STATES[:length])
    assert recorder.finalize(Key(tag.nonce, 0), [1] * length) == proofs_of(STATES[:length])
    assert recorder.slots_in_use == 0


def test_answer_without_tokens_has_no_proofs() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    assert recorder.finalize(Key(tag.nonce, 0), []) == []
    assert recorder.slots_in_use == 0


def test_proofs_are_given_once() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:1], STATES[:1])
    recorder.finalize(Key(tag.nonce, 0), [1])
    assert code_of(recorder, Key(tag.nonce, 0), [1]) == "capture_unknown"


def test_more_tokens_than_were_computed() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:33], STATES[:33])
    assert code_of(recorder, Key(tag.nonce, 0), [1] * 34) == "rows_missing"


def test_rows_of_the_slots_former_owner_are_not_taken() -> None:
    """Even where position and token are the same."""
    recorder = make_recorder()
    former = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:20], STATES[:20])
    recorder.discard(Key(former.nonce, 0))
    tag = register(recorder, "b", 1)
    record(recorder, "b", 0, ONES[:10], STATES[:10])
    assert code_of(recorder, Key(tag.nonce, 0), [1] * 20) == "rows_missing"


def test_wrong_token() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES, STATES)
    assert code_of(recorder, Key(tag.nonce, 0), [1] * 39 + [0]) == "rows_mismatch"
    assert recorder.slots_in_use == 0


def test_discarded_request_is_not_recorded_into_its_successors_slot() -> None:
    recorder = make_recorder()
    former = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:1], STATES[:1])
    recorder.discard(Key(former.nonce, 0))
    tag = register(recorder, "b", 1)
    recorder.record(
        make_step([("a", 1, np.arange(1, 2), ONES[:1], STATES[7:8]), ("b", 0, np.arange(2), ONES[:2], STATES[:2])])
    )
    record(recorder, "a", 2, ONES[:1], STATES[8:9])
    assert recorder.finalize(Key(tag.nonce, 0), [1, 1]) == proofs_of(STATES[:2])


def test_id_that_is_finished_and_used_again() -> None:
    recorder = make_recorder(num_slots=2)
    former = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:1], STATES[:1])
    recorder.finished(["a", "never-seen"])
    tag = register(recorder, "a", 1)
    record(recorder, "a", 0, ONES[:3], STATES[3:6])
    assert recorder.finalize(Key(former.nonce, 0), [1]) == proofs_of(STATES[:1])
    assert recorder.finalize(Key(tag.nonce, 0), [1] * 3) == proofs_of(STATES[3:6])


def test_children_of_one_tag_are_kept_apart() -> None:
    recorder = make_recorder(num_slots=2)
    tag = Tag.new(children=2)
    for child in range(2):
        recorder.register(f"{child}_x_y", {EXTRA_ARG: tag.seal(SECRET)}, 1)
        record(recorder, f"{child}_x_y", 0, ONES[:2], STATES[child * 2 :][:2])
    assert recorder.finalize(Key(tag.nonce, 1), [1, 1]) == proofs_of(STATES[2:4])
    assert recorder.finalize(Key(tag.nonce, 0), [1, 1]) == proofs_of(STATES[:2])


@pytest.mark.parametrize("extra_args", [None, {}, {EXTRA_ARG: 1}, {EXTRA_ARG: Tag.new().seal("another")}])
def test_requests_without_our_tag_are_not_captured(extra_args: dict[str, object] | None) -> None:
    recorder = make_recorder()
    recorder.register("a", extra_args, 1)
    record(recorder, "a", 0, ONES[:1], STATES[:1])
    assert recorder.slots_in_use == 0


def test_prompt_without_token_ids_is_not_captured() -> None:
    recorder = make_recorder()
    tag = register(recorder, "a", None)
    assert code_of(recorder, Key(tag.nonce, 0), [1]) == "capture_unknown"


def test_engine_request_that_names_no_child_is_not_captured() -> None:
    recorder = make_recorder()
    tag = register(recorder, "no-index", 1, children=2)
    assert recorder.slots_in_use == 0
    assert code_of(recorder, Key(tag.nonce, 0), [1]) == "capture_unknown"


def test_refusals_are_forgotten_in_order() -> None:
    recorder = make_recorder()
    register(recorder, "a", 1)
    tags = [register(recorder, f"b{i}", 1) for i in range(MAX_REFUSALS + 1)]
    assert code_of(recorder, Key(tags[0].nonce, 0), [1]) == "capture_unknown"
    assert code_of(recorder, Key(tags[1].nonce, 0), [1]) == "capture_slots_exhausted"
    assert code_of(recorder, Key(tags[-1].nonce, 0), [1]) == "capture_slots_exhausted"
    assert recorder.slots_in_use == 1


def test_only_finished_captures_expire() -> None:
    recorder = make_recorder(num_slots=2)
    finished = register(recorder, "a", 1)
    running = register(recorder, "b", 1)
    record(recorder, "b", 0, ONES[:1], STATES[:1])
    recorder.finished(["a"])
    assert recorder.expire(ttl=3600) == 0
    assert recorder.expire(ttl=-1) == 1
    assert code_of(recorder, Key(finished.nonce, 0), [1]) == "capture_unknown"
    assert recorder.finalize(Key(running.nonce, 0), [1]) == proofs_of(STATES[:1])


def test_answers_that_nobody_reads_leave_their_slots_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream's end is asked for when its client has read up to there, which may be never."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    recorder = make_recorder(num_slots=2)
    older, newer = register(recorder, "a", 1), register(recorder, "b", 1)
    for name in ("b", "a"):
        record(recorder, name, 0, ONES[:1], STATES[:1])
    recorder.finished(["a"])
    now = UNREAD_SECONDS
    recorder.finished(["b"])
    early = register(recorder, "c", 1)
    now += 1
    late = register(recorder, "d", 1)
    record(recorder, "d", 0, ONES[:1], STATES[:1])
    for refused in (older, early):
        assert code_of(recorder, Key(refused.nonce, 0), [1]) == "capture_slots_exhausted"
    for kept in (newer, late):
        assert recorder.finalize(Key(kept.nonce, 0), [1]) == proofs_of(STATES[:1])


@pytest.mark.parametrize(("model", "kept"), [("float32", "bfloat16"), ("float16", "float16")])
def test_other_dtypes(model: str, kept: str) -> None:
    recorder = make_recorder(dtype=getattr(torch, kept))
    tag = register(recorder, "a", 1)
    states = torch.randn(34, HIDDEN, generator=torch.Generator().manual_seed(1)).to(getattr(torch, model))
    step = make_step([("a", 0, np.arange(34), ONES[:34], STATES[:34])])
    recorder.record(
        Step(
            step.request_ids,
            step.first_positions,
            step.starts,
            states,
            step.positions,
            step.input_ids,
        )
    )
    expected = states.to(getattr(torch, kept)).view(torch.int16).numpy().view(np.uint16)
    assert recorder.finalize(Key(tag.nonce, 0), [1] * 34) == proofs_of(expected)
