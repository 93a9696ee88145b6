"""What the check on an answer's pooled error holds it against: the spread of honest answers, and that of copies."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..engine import Facts
from ..pooling.spread import SHARE, Alternative, Spread
from .noise import ChannelNoise  # noqa: TC001 (pydantic reads it)

CopyName = Annotated[str, Field(min_length=1, max_length=100)]


class Copy(BaseModel):
    """An altered copy to be on the watch for: its chunks' scores, and the sequential test against it.

    `threshold` is reached by at most a share `false_alarm` of honest providers within so many `audits`, if a share
    `share` of the traffic is what the test expects to be altered (`toploc.pooling.spread`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scores: Spread
    threshold: float = Field(gt=0)
    share: float = Field(default=SHARE, gt=0, le=1)
    audits: int = Field(default=1000, ge=1)
    false_alarm: float = Field(default=0.01, gt=0, lt=1)


class PooledBounds(BaseModel):
    """Off unless a thresholds file has them: they hold for the engine configuration in `provenance` and would accuse an
    honest provider of another, as docs/evidence.md measures.

    `honest`: scores of whole chunks. `noise`: of each channel, where the score of a chunk is its error by channel
    (`toploc.proofs.channels`); None where it is the logarithm of its mean mantissa error. `bound`: standard deviations
    above their mean that the score of an answer may lie; None where answers are not to be refused by it. `copies` by
    name. `engine`: facts of the engine that they hold for; answers of one that says other of itself are not comparable.
    One that says nothing is held against them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    honest: Spread
    noise: ChannelNoise | None = None
    provenance: str = Field(min_length=1)
    bound: float | None = Field(default=None, ge=0)
    copies: dict[CopyName, Copy] = {}
    engine: Facts = Facts()

    def alternative(self, name: str) -> Alternative:
        """What the sequential test against a copy compares."""
        return Alternative(self.honest, self.copies[name].scores, self.copies[name].share)
