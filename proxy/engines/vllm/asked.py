"""A request as a rehearsal asks it of the server's own route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from toploc.errors import ToplocError

from ...verify.engine import DELIVERY
from ..guards import load
from . import reliances
from .logprobs import lengthen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...verify.engine import Claim

sanitize_message: Final = load(reliances.SANITIZE_MESSAGE)

_FLAG: Final[TypeAdapter[bool | None]] = TypeAdapter(bool | None)


LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields that bound an answer's tokens; of a chat that has the first two the first counts."""


class Refused(ToplocError):
    """By the class of the request, in its words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the route gets it. `limit`: of tokens, which it asks for; `listed`: see `lengthen`."""

    route: str
    request: Any
    limit: int | None
    listed: Mapping[str, int]
    in_background: bool | None

    @classmethod
    def of(
        cls,
        route: str,
        body: Mapping[str, Any],
        choices: Sequence[Sequence[Claim]],
        request_class: Any,
        *,
        stream: bool,
    ) -> Asked:
        """Raises Refused."""
        asked = {name: value for name, value in body.items() if name not in DELIVERY}
        if route == "response":
            asked["store"] = False
        options = asked
        if route == "generate":
            options = asked["sampling_params"] = {**body["sampling_params"]}
        limit, listed = _shorten(options, choices), lengthen(route, options)
        if stream:
            asked |= {name: body[name] for name in ("stream", "stream_options") if name in body}
        try:
            request = request_class.model_validate(asked)
            in_background = _FLAG.validate_python(body.get("background", False))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise Refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except Exception as error:
            # What vLLM's validators raise themselves (VLLMValidationError) is no ValueError, which pydantic would take.
            raise Refused(message_of(error)) from None
        return cls(route, request, limit, listed, in_background)


def _shorten(body: dict[str, Any], choices: Sequence[Sequence[Claim]]) -> int | None:
    """Ask for no more tokens than the answer has; the limit that the request asks for, None where it has none.

    A provider's context may hold a limit that this server's does not, and its routes would refuse. The replay ends
    where the request's own limit is.
    """
    names = [name for name in LIMITS if isinstance(body.get(name), int | float)]
    if not names or any(body[name] < 1 for name in names):
        return None
    longest = max((len(claim.token_ids) for call in choices for claim in call), default=1)
    limit = int(body[names[0]])
    for name in names:
        body[name] = min(int(body[name]), max(1, longest, int(body.get("min_tokens") or 0)))
    return limit


def message_of(refusal: Any) -> str:
    """Without paths and addresses, which exceptions tell of and vLLM's own error handlers take out."""
    error = refusal.get("error") if isinstance(refusal, dict) else refusal
    said = error.get("message") if isinstance(error, dict) else error
    message: str = sanitize_message(str(said or "nothing was generated"))
    return message[:200]
