"""What verification asks of an engine. Each folder of `engines/` has one in its `prefill.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


class Unrenderable(ToplocError):
    """The server's own route does not take the request. The message is its own."""


class Rendered(Protocol):
    """One prompt as the server's own route hands it to the engine."""

    @property
    def token_ids(self) -> list[int]:
        """Raises Unrenderable for prompts that are more than tokens."""


class Health(Protocol):
    """Whether the engine lives, and what its requests get if not."""

    @property
    def errored(self) -> bool:
        """Whether it died."""

    @property
    def dead_error(self) -> BaseException:
        """What ends its requests then."""


class Engine(Protocol):
    """The engine that this server runs, and the routes before it.

    Attributes:
        model: path or name of its weights.
        vocab_size, context_length: its limits, in tokens.
        defaults: options of sampling where a request has none.
        eos_token_ids: what ends an answer.
        health: to be looked at while something other than its outputs is waited for.
    """

    model: str
    vocab_size: int
    context_length: int
    defaults: Mapping[str, Any]
    eos_token_ids: Collection[int]
    health: Health

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool, /) -> str:
        """Their text. On any thread."""

    def adapters(self) -> Iterable[str]:
        """Names of the adapters that are loaded now."""

    async def render(self, route: str, body: Mapping[str, Any]) -> Sequence[Rendered]:
        """The prompts that a request leads to. Raises Unrenderable if there are none."""

    def adapter_of(self, rendered: Any) -> int | None:
        """The number of the adapter that one of `render`'s runs under."""

    async def prefill(self, name: str, token_ids: list[int], rendered: Any, extra_args: dict[str, Any]) -> None:
        """Runs these tokens, under the adapter of one of `render`'s, past no cache; what comes out is dropped.

        `extra_args` reach the worker with the request. Raises whatever the engine raises.
        """
