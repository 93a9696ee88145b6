"""What verification asks of an engine. Each folder of `engines/` has one in its `prefill.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from toploc.protocol import Media
    from toploc.tokens.logprobs import TokenLogprobs
    from toploc.tokens.masks import Constraint
    from toploc.tokens.sampling import Sampling

    from ..channel.messages import Logprobs

DELIVERY: Final = ("stream", "stream_options", "store", "background")
"""Fields of a request that say where an answer is left to be fetched, or how it is sent: no part of what is asked."""


class Unrenderable(ToplocError):
    """The server's own route does not take the request. The message is its own."""


class Busy(ToplocError):
    """The engine takes no more requests now. The message is its own."""


class Rendered(Protocol):
    """One prompt as the server's own route hands it to the engine."""

    @property
    def token_ids(self) -> list[int]:
        """Raises Unrenderable for prompts that are more than tokens and media."""

    @property
    def media(self) -> tuple[Media, ...]:
        """Of the prompt."""

    @property
    def logprobs(self) -> Logprobs | None:
        """The log-probabilities that the response reports of what follows this prompt."""


class Claim(NamedTuple):
    """The tokens of a choice. Of one that is not `proven` it is not known whether they are all."""

    token_ids: Sequence[int]
    proven: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities of a choice and of its prompt; None of what was not asked for."""

    answer: TokenLogprobs | None = None
    prompt: TokenLogprobs | None = None


class Prefills(Protocol):
    """What is computed of an answer's choices while it is rehearsed."""

    def begin(self, place: int, rendered: Rendered) -> None:
        """Those of the choices of a prompt, by its number, once it is known."""

    async def scored(self, place: int) -> Sequence[Scored] | None:
        """The log-probabilities of the choices of a prompt that were begun; None if they are not to be had."""


@dataclass(frozen=True, slots=True)
class Text:
    """What the tokens of a choice say; `offsets`: characters at which each of its chunks begins, and the last ends."""

    text: str
    offsets: tuple[int, ...]


@dataclass(slots=True)
class Performance:
    """What came of a rehearsal.

    `prompts`: those that the route came to. `response`: what it answered, None with the `problem` where it answered
    nothing; `unfetched`: because it did not get what an address in the request leads to. `ended`: the choice that the
    engine would have ended elsewhere, if any, and after how many tokens; None for not there.
    """

    prompts: list[Any] = field(default_factory=list)
    response: dict[str, Any] | None = None
    problem: str = ""
    unfetched: bool = False
    ended: tuple[int, int | None] | None = None
    texts: dict[int, Text] = field(default_factory=dict)
    """Of the choices, by number, before any parser."""
    scored: bool = True
    """Whether the log-probabilities in the response are the verifier's; else they stand for nothing."""
    chosen_first: bool = True
    """Whether the engine's lists of the likeliest tokens begin with the one that was chosen, however likely it is."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Fields of the response that list `MORE` of the likeliest tokens of each place than were asked for, and that
    number (`toploc.evidence.alternatives`)."""


class Health(Protocol):
    """Whether the engine lives, and what its requests get if not."""

    @property
    def errored(self) -> bool:
        """Whether it died."""

    @property
    def dead_error(self) -> BaseException:
        """What ends its requests then."""


class Rehearsal(Protocol):
    """The server's own routes, answering with tokens that are given."""

    @property
    def routes(self) -> Sequence[str]:
        """Those whose responses are rehearsed."""

    async def perform(
        self,
        route: str,
        body: Mapping[str, Any],
        choices: Sequence[Sequence[Claim]],
        prefills: Prefills,
        tool_outputs: Sequence[str],
        *,
        stream: bool = False,
        one_by_one: bool = False,
    ) -> Performance:
        """What the server would answer to a request with these choices of each prompt.

        The prefills of a prompt begin when it is known. Tools that it runs itself give `tool_outputs`. A `stream` is
        put together again, from tokens in large pieces or `one_by_one`.
        """


class Engine(Protocol):
    """The engine that this server runs, and the routes before it.

    Attributes:
        model: path or name of its weights.
        vocab_size, context_length: its limits, in tokens.
        defaults: options of sampling where a request has none.
        eos_token_ids: what ends an answer.
        health: to be looked at while something other than its outputs is waited for.
        reports: what it calls log-probabilities; None for what options have changed.
        rehearsal: the routes before it.
        chat_template: by which it renders chats, or several by name; None if unknown.
    """

    model: str
    vocab_size: int
    context_length: int
    defaults: Mapping[str, Any]
    eos_token_ids: Collection[int]
    health: Health
    reports: Literal["logprobs", "logits"] | None
    chat_template: str | Mapping[str, str] | None

    @property
    def rehearsal(self) -> Rehearsal: ...

    @property
    def end(self) -> int | None:
        """The token that ends an answer by itself; None where several may."""

    def encode(self, text: str, /) -> list[int]:
        """Its tokens, without any before or behind. On any thread."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool, /) -> str:
        """Their text. On any thread."""

    def spelled(self, text: str, /) -> int:
        """Of how many tokens a response may say this. On any thread."""

    @property
    def answering(self) -> bool:
        """Whether it has requests of this process that are no verification's."""

    def adapters(self) -> Iterable[str]:
        """Names of the adapters that are loaded now."""

    def sampling_of(self, rendered: Any, asked: Sampling) -> Sampling:
        """The options that the engine is handed after one of a rehearsal's prompts, with the seed and the sampler of
        `asked`, which is read from the request itself."""

    def alternatives(self, rendered: Any) -> int:
        """How many sets of masks the answers to one of a rehearsal's prompts may have been drawn under, at least 1: of
        some options another server of the same kind may have made others."""

    async def constrain(self, rendered: Any, token_ids: Sequence[int], alternative: int) -> Constraint:
        """What came of following an answer through the options that logits alone do not replay."""

    def adapter_of(self, rendered: Any) -> int | None:
        """The number of the adapter that a rehearsal's prompts runs under."""

    async def prefill(self, name: str, token_ids: list[int], rendered: Any, extra_args: dict[str, Any]) -> None:
        """Runs these tokens, under the adapter of a rehearsal's prompts, past no cache; what comes out is dropped.

        `extra_args` reach the worker with the request. Raises Busy, and whatever the engine raises.
        """
