"""What the tokens check holds its figures against."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TokenBounds(BaseModel):
    """Upper bounds on distances and lower bounds on chances.

    `margin`: logits that any token may lie below the best one, with the sampler's noise or without. `near`: logits that
    a token may lie below by numeric noise between two engines; `rate`: the share of honest tokens that lie further.
    `support`: logits that a token may lie outside of what sampling leaves, whose border moves with the noise of many
    tokens; `outside`: the share of honest tokens that lie outside at all.

    A sampled answer fails if the model goes as far with a chance below one of three. `chance`: in surprise, and in the
    lack of it. `window_chance`: the same of its worst window. `token_chance`: in its rarest token. So an honest answer
    fails with a chance of 2 `chance` + 2 `window_chance` + `token_chance` at most, 0.002 by default, and one with
    several choices with a `chance` more, for their being equal. These hold for any model.

    The defaults are no calibration of any model. Logits are mostly computed in bfloat16, whose steps are 1/8 from 16 to
    32: `near` is two of them, one for each engine, `margin` eight, `support` sixteen. `rate` and `outside` are 1 % and
    2 %, where the bundled model has less than a tenth of either (docs/evidence.md), since larger models add up more
    rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    margin: float = Field(default=1.0, ge=0)
    support: float = Field(default=2.0, ge=0)
    near: float = Field(default=0.25, ge=0)
    rate: float = Field(default=0.01, ge=0, le=1)
    outside: float = Field(default=0.02, ge=0, le=1)
    chance: float = Field(default=4e-4, gt=0, le=1)
    window_chance: float = Field(default=4e-4, gt=0, le=1)
    token_chance: float = Field(default=4e-4, gt=0, le=1)
    provenance: str = "defaults, not calibrated for this model"

    def of_logprobs(self) -> TokenBounds:
        """For log-probabilities that a response reports: `near` and `rate` are no finer than the defaults.

        Unlikely tokens have more noise than the likeliest, which bounds are calibrated on, and grammars, bad words and
        allowed ids lead to text that is all unlikely. The bundled model's own bounds refused 46 of 228 honest answers
        that list four tokens of each place, by log-probabilities 0.281 off at most (29 November 2026).
        """
        names = ("near", "rate")
        return self.model_copy(update={name: max(getattr(self, name), getattr(DEFAULT, name)) for name in names})

    @model_validator(mode="before")
    @classmethod
    def _of_older_files(cls, value: Any) -> Any:
        """Files had a bound on z, which the chance has made needless: it is normal where that is small."""
        return {name: v for name, v in value.items() if name != "z"} if isinstance(value, dict) else value


DEFAULT: Final = TokenBounds()
"""Of thresholds without bounds on tokens."""
