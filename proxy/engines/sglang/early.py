"""Asks for an answer's proofs as soon as the scheduler says that it is over.

A process that serves HTTP works on a step of many answers for longer than their proofs take, and what is awaited then
comes behind all of it. Asked for before, they are there when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from toploc.errors import ProofUnavailable

from ...answers.proving import inputs_of
from ...channel.client import in_background
from ...log import logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...answers.context import Call, RequestContext
    from ...channel.client import Asked, Channel
    from ...channel.messages import Proofs
    from ...channel.tag import Tag

ABORTED: Final = "abort"
"""The `type` of an end of which no proofs are asked for."""


class Early(NamedTuple):
    """Proofs that are asked for already, for tokens that went in."""

    inputs: list[int]
    asked: Asked


@dataclass(slots=True, eq=False)
class Running:
    """A request in the scheduler: which choice of which call it makes."""

    channel: Channel
    context: RequestContext
    call: Call
    child: int
    tag: Tag
    early: Early | None = None

    def ask(self, token_ids: Sequence[int]) -> None:
        """Asks for the proofs of these tokens, which are all."""
        inputs = inputs_of(self.call.prompt_token_ids, token_ids)
        self.early = Early(inputs, self.channel.ask_for_proofs(self.tag.nonce, 0, inputs))

    async def fetch(self, token_ids: Sequence[int], reason: Mapping[str, Any]) -> Proofs:
        """The proofs of these tokens, of an answer that ended for this reason. Raises ProofUnavailable."""
        if reason.get("type") == ABORTED:
            self.discard()
            raise ProofUnavailable("aborted", "the generation was aborted before its end")
        if not token_ids:
            self.discard()
            raise ProofUnavailable("no_output", "nothing was generated")
        inputs = inputs_of(self.call.prompt_token_ids, token_ids)
        if self.early is not None and self.early.inputs == inputs:
            early, self.early = self.early, None
            return await self.channel.proofs(early.asked)
        if self.early is not None:
            raise RuntimeError(
                f"the scheduler ended with {len(self.early.inputs)} tokens, the answer with {len(inputs)}"
            )
        return await self.channel.finalize(self.tag.nonce, 0, inputs)

    def discard(self) -> None:
        """Nobody will ask."""
        self.close()
        in_background(self.channel.discard(self.tag.nonce, [0]))

    def close(self) -> None:
        """Takes no more interest in what was asked for."""
        if self.early is not None:
            self.early.asked.forget()
            self.early = None


def ask_for_ended(states: Mapping[str, Any], outputs: Any) -> None:
    """Asks for the proofs of all that ended in this step.

    Args:
        states: of the requests, by id, before they are told of the outputs (TokenizerManager.rid_to_state).
        outputs: BatchStrOutput or BatchTokenIDOutput (sglang/srt/managers/io_struct.py).
    """
    for rid, reason, new in zip(outputs.rids, outputs.finished_reasons, outputs.output_ids or (), strict=False):
        if reason is None or reason.get("type") == ABORTED:
            continue
        state = states.get(rid)
        running: Running | None = getattr(state, "toploc_running", None)
        if state is None or running is None:
            continue
        try:
            if token_ids := [*state.output_ids, *new]:
                running.ask(token_ids)
        except Exception:
            # They are asked for when they are needed.
            logger.exception("toploc: asking early for proofs failed")
