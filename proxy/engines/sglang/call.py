"""One prompt that a route would have had SGLang answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...channel.messages import Logprobs


@dataclass(frozen=True, slots=True)
class Call:
    """See `verify.engine.Rendered`.

    `request`: TokenizedGenerateReqInput, what SGLang makes of the prompt and its options. `adapter`: its name.
    """

    request: Any
    adapter: str | None

    @property
    def token_ids(self) -> list[int]:
        return list(self.request.input_ids)

    @property
    def media(self) -> tuple[()]:
        """A prompt with media is not rendered."""
        return ()

    @property
    def logprobs(self) -> Logprobs | None:
        """A response with them is not rehearsed."""
        return None
