"""What the tokens check holds its figures against."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class TokenBounds(BaseModel):
    """Upper bounds; lower is better.

    `margin`: logits that any token may lie below the best one, with the sampler's noise or without. `near`: logits that
    a token may lie below by numeric noise between two engines; `rate`: the share of honest tokens that lie further.
    `support`: logits that a token may lie outside of what sampling leaves, whose border moves with the noise of many
    tokens. `z` and `chance`: a sampled answer fails if its surprisal lies more than `z` standard deviations above the
    model's entropy, and the chance of one as surprising is below `chance` by Chernoff's bound. The second holds for
    short answers and for those of which most tokens are certain, where z is no normal variable. `window_chance`: the
    same of its worst window.

    The defaults are no calibration of any model. Logits are mostly computed in bfloat16, whose steps are 1/8 from 16 to
    32: `near` is two of them, one for each engine, `margin` eight, `support` sixteen. `rate` is 1 %, where the bundled
    model has less than a hundredth of that (docs/evidence.md), since larger models add up more rounding. The chances
    hold for any model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    margin: float = Field(default=1.0, ge=0)
    support: float = Field(default=2.0, ge=0)
    near: float = Field(default=0.25, ge=0)
    rate: float = Field(default=0.01, ge=0, le=1)
    z: float = Field(default=3.29, ge=0)
    chance: float = Field(default=1e-3, gt=0, le=1)
    window_chance: float = Field(default=1e-3, gt=0, le=1)
    provenance: str = "defaults, not calibrated for this model"


DEFAULT: Final = TokenBounds()
"""Of thresholds without bounds on tokens."""
