"""What a worker computes of a prefill that verifies an answer: top-k points of its chunks, and its tokens' scores."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

from toploc.errors import InvalidActivations, ProofUnavailable
from toploc.proofs.chunks import state_points
from toploc.scheme import TOPK
from toploc.tokens.logprobs import token_logprobs
from toploc.tokens.masks import Masks
from toploc.tokens.sampling import Sampling
from toploc.tokens.scoring import score_tokens

from ..channel.messages import Examined, Refusal
from ..log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..channel.messages import Examine, Masked, Reply
    from .prefills import Prefills

LOGITS_ROWS: Final = 512
"""Rows of logits held at once: 131 MB of bfloat16 at 128,000 tokens. The head's weights, 1 GB there, are read for
each."""


class Head(Protocol):
    """A model's output head, apart from the engine's steps."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [n, vocabulary] of hidden states [n, hidden]."""

    def fits(self, adapter: int | None) -> bool:
        """Whether the logits are now the model's under the adapter of this number."""


class Examiner:
    """Examines prefills one after another on a thread of its own, beside the engine's and the side channel's.

    Args:
        prefills: where their rows are.
        head: None where logits cannot be had apart from the engine's own steps.
        device: the model's.
    """

    def __init__(self, prefills: Prefills, head: Head | None, device: torch.device) -> None:
        self.prefills = prefills
        self._head = head
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # Held while rows and weights are read, which are not there while the engine sleeps.
        self._reading = threading.Lock()
        self._asleep = False
        self._waiting: queue.SimpleQueue[tuple[Examine, Callable[[Reply], object]] | None] = queue.SimpleQueue()

    def discard(self, nonce: str) -> None:
        """Nobody will ask about this prefill."""
        self.prefills.discard(nonce)

    def expire(self, ttl: float) -> int:
        """See `Prefills.expire`."""
        return self.prefills.expire(ttl)

    def sleep(self) -> None:
        """Weights are about to go: waits for the examination under way, and refuses others until `wake`."""
        with self._reading:
            self._asleep = True

    def wake(self) -> None:
        self._asleep = False

    @property
    def has_scores(self) -> bool:
        return self._head is not None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="toploc-examiner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, once it has examined what it was asked to."""
        self._waiting.put(None)
        self._thread.join()

    def submit(self, request: Examine, reply: Callable[[Reply], object]) -> None:
        """Calls `reply` once, from the examiner's thread."""
        self._waiting.put((request, reply))

    def _run(self) -> None:
        while (asked := self._waiting.get()) is not None:
            request, reply = asked
            reply(self.examine(request))

    def examine(self, request: Examine) -> Reply:
        """Everything that a verifier needs of one prefill, or why it cannot be had."""
        prefill = self.prefills.take(request.nonce)
        if prefill is None:
            return Refusal("capture_unknown", "no hidden states were captured for this prefill")
        try:
            with self._reading, torch.inference_mode(), torch.cuda.stream(self._stream):
                if self._asleep:
                    return Refusal("asleep", "the engine sleeps, and its weights are not there")
                prompt = request.prompt if _of_prompt(request) else request.prompt[-1:]
                states = prefill.states([*prompt, *request.token_ids[:-1]])
                examined = self._examine(request, states.to(self._device))
            if self.prefills.is_stale(prefill):
                return Refusal("weights_changed", "other weights were loaded while it was examined")
            return examined
        except ProofUnavailable as error:
            return Refusal(error.code, str(error))
        except InvalidActivations as error:
            return Refusal("activations_invalid", str(error))
        except Exception:
            # The thread must outlive any one answer.
            logger.exception("toploc: examining a prefill failed")
            return Refusal("internal_error", "examining the prefill failed; the server's log has the details")
        finally:
            self.prefills.release(prefill)

    def _examine(self, request: Examine, rows: torch.Tensor) -> Examined:
        """`rows`: the states before each token of the answer, and where the prompt is asked about, of all of it."""
        states = rows[-len(request.token_ids) :]
        points = state_points(states, TOPK)
        head = self._head if self._head is not None and self._head.fits(request.adapter) else None
        masks = None if request.masks is None else _masks(request.masks)
        scores: dict[str, bytes] = {}
        logprobs: dict[str, bytes] = {}
        if head is not None and request.sampling is not None:
            sampling = Sampling.model_validate_json(request.sampling)
            ends, logits = request.eos_token_ids, self._logits(head, states)
            scored = score_tokens(logits, request.prompt, request.token_ids, sampling, ends, masks)
            scores = scored.to_bytes()
        if head is not None and request.logprobs is not None:
            wanted = request.logprobs
            if wanted.count is not None:
                logits = self._logits(head, states)
                reported = token_logprobs(
                    logits, request.token_ids, wanted.count, given=wanted.given, raw=wanted.raw, masks=masks
                )
                logprobs |= reported.to_bytes()
            if wanted.prompt is not None and len(request.prompt) > 1:
                logits = self._logits(head, rows[: len(request.prompt) - 1])
                reported = token_logprobs(logits, request.prompt[1:], wanted.prompt, raw=wanted.raw)
                logprobs |= reported.to_bytes("prompt_")
        return Examined(points.indices.tobytes(), points.patterns.tobytes(), list(points.rows), scores, logprobs)

    def _logits(self, head: Head, states: torch.Tensor) -> Iterator[torch.Tensor]:
        for first in range(0, len(states), LOGITS_ROWS):
            yield head(states[first : first + LOGITS_ROWS])


def _masks(masked: Masked) -> Masks:
    raw, processed = (np.frombuffer(numbers, dtype=np.int32) for numbers in (masked.raw, masked.processed))
    rows = np.frombuffer(masked.rows, dtype=np.int32)
    return Masks(rows.reshape(max(raw.max(), processed.max()) + 1, -1), raw, processed)


def _of_prompt(request: Examine) -> bool:
    return request.logprobs is not None and request.logprobs.prompt is not None
