"""What all requests to one API server share, in one place: `app.state.toploc`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from .answers.context import Served
    from .answers.later import Later
    from .channel.client import Channel
    from .channel.messages import Welcome
    from .receipts.signing import Signer
    from .settings import Settings
    from .stores.proofs import ProofStore
    from .tracing import Spans
    from .verify.verifier import EngineVerifier


class Weights(Protocol):
    """Those that an engine was started with (`weights.FirstWeights`)."""

    @property
    def sha256(self) -> str | None:
        """Their digest."""

    @property
    def problem(self) -> str | None:
        """Why there is none."""


@dataclass(frozen=True, slots=True)
class Server:
    """Made once the engine is up and its workers have answered, before the first request.

    Attributes:
        settings: what the operator chose.
        served: what all answers have in common.
        weights: those that the engine was started with.
        channel: to the workers.
        welcome: what the workers say of themselves; all say the same.
        signer: None if answers are not signed.
        later: what is known of responses that can be fetched; None if the engine keeps none.
        proofs: those of recent answers, by the response's id.
        verifier: judges evidence; None on a server without a tokenizer.
        spans: where what is traced goes.
        watch: asks the workers for their slots. Kept, since the event loop itself would let go of it.
    """

    settings: Settings
    served: Served
    weights: Weights
    channel: Channel
    welcome: Welcome
    signer: Signer | None
    later: Later | None
    proofs: ProofStore
    verifier: EngineVerifier | None
    spans: Spans
    watch: asyncio.Task[None]
