"""How much honest engines differ in each channel of the hidden state, which large models have some far larger of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Size = Annotated[float, Field(gt=0)]


class ChannelNoise(BaseModel):
    """Root mean squares of what honest points of whole chunks claim less what a verifier has, as differences of
    numbers.

    `channels`: by channel, from 0 on, those that are often among a chunk's largest; `usual`: of each of the others.
    `hidden_size`: channels of a hidden state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hidden_size: int = Field(ge=1)
    usual: Size
    channels: dict[Annotated[int, Field(ge=0)], Size] = {}

    @model_validator(mode="after")
    def _channels_there_are(self) -> Self:
        if self.channels and max(self.channels) >= self.hidden_size:
            raise ValueError(f"channels: {max(self.channels)} is not below hidden_size, {self.hidden_size}")
        return self

    @cached_property
    def by_channel(self) -> NDArray[np.float64]:
        """float64[hidden_size]."""
        import numpy as np

        values = np.full(self.hidden_size, self.usual)
        values[list(self.channels)] = list(self.channels.values())
        return values
