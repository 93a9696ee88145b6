"""What the tokens check holds its figures against."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class TokenBounds(BaseModel):
    """Upper bounds; lower is better. The defaults are no calibration of any model: docs/verify.md says what is known.

    `margin`: logits that a token may lie below the best one, or below the least that sampling leaves, by numeric noise
    between two engines. `rate`: the share of an answer's tokens that may lie further, rounded down. `z` and `chance`:
    a sampled answer fails if its surprisal lies more than `z` standard deviations above the model's entropy, and the
    chance of one as surprising is below `chance` by Chernoff's bound. The second holds for short answers and for those
    of which most tokens are certain, where z is no normal variable. `window_chance`: the same of its worst window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    margin: float = Field(default=0.25, ge=0)
    rate: float = Field(default=0.002, ge=0, le=1)
    z: float = Field(default=3.29, ge=0)
    chance: float = Field(default=1e-3, gt=0, le=1)
    window_chance: float = Field(default=1e-3, gt=0, le=1)
    provenance: str = "defaults, not calibrated for this model"


DEFAULT: Final = TokenBounds()
