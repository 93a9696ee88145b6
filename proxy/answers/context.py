"""What the middleware and the wrapped `generate` know of one HTTP request."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from toploc.protocol import ChoiceProofs, Media, PromptDigest, ProofError, RequestOptions, ToplocProofs

from .written import is_plain, written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from toploc.engine import Engine
    from toploc.errors import ProofUnavailable


TOGETHER: Final = 8
"""Choices of a stream up to which each event that ends one carries all that have ended. Of more, the last event alone
does: their proofs would be sent half as many times as there are choices."""


UNKNOWN: Final = "choice_unknown"
"""The code of a choice that nothing was generated for."""


@dataclass(frozen=True, slots=True)
class Served:
    """What all answers of this server have in common."""

    model: str
    dtype: Literal["bfloat16", "float16"]
    rounded_from: Literal["float32"] | None
    sampler: str | None = None
    engine: Engine | None = None
    revision: str | None = None
    """The commit of the model that it was started with."""
    engine_json: msgspec.Raw | None = field(init=False, compare=False)
    """What all answers say of the engine, once and for all."""

    def __post_init__(self) -> None:
        said = None if self.engine is None else msgspec.Raw(self.engine.model_dump_json(exclude_none=True).encode())
        object.__setattr__(self, "engine_json", said)


@dataclass(slots=True)
class Call:
    """One call of `generate`: one prompt, `n` choices.

    Attributes:
        refusal: why this call cannot be proven, known before it starts.
        choices: by index, once their last token is out.
        media: of the prompt.
        seed: of the first choice's tokens; None if none was drawn from one.
        request_id: the engine's; that of the response too, where there is one call with one prompt.
    """

    model: str
    n: int
    refusal: ProofError | None = None
    prompt_token_ids: Sequence[int] = ()
    choices: dict[int, ChoiceProofs] = field(default_factory=dict)
    seed: int | None = None
    request_id: str = ""
    trace_headers: Mapping[str, str] | None = None
    digest: PromptDigest | None = None
    """Of the prompt, once it was asked for."""
    media: Sequence[Media] = ()


@dataclass(slots=True)
class RequestContext:
    """One HTTP request and the calls of `generate` it led to, in order.

    Attributes:
        asked: the model that the request names, as it does.
        settled: whether any choice has its proofs, or the reason why not. No event of a stream is ours before.
        lost: why the proofs of an answer that is fetched later are no longer there.
    """

    served: Served
    options: RequestOptions
    refusal: ProofError | None = None
    calls: list[Call] = field(default_factory=list)
    settled: bool = False
    lost: ProofError | None = None
    asked: str | None = None

    @property
    def request_id(self) -> str:
        """The first call's, which the response's id is, or begins."""
        return next((call.request_id for call in self.calls), "")

    def proofs(self, ended: Sequence[int] | None = None) -> ToplocProofs:
        """The response's field, or that of a stream's event, which ends the last of the choices that have `ended`.

        Choices are numbered through: prompt by prompt in a completion with several, turn by turn in a response with
        tool calls.
        """
        if self.lost is not None:
            return self.without_proofs(self.lost)
        numbered = self._numbered()
        if ended is not None and not 0 <= ended[-1] < len(numbered):
            return self.without_proofs(ProofError(code=UNKNOWN, message=f"no generation belongs to choice {ended[-1]}"))
        wanted: Sequence[int] = range(len(numbered))
        if ended is not None:
            # Who keeps the last value of a field that it does not know has them all then.
            wanted = sorted(ended) if len(ended) == len(numbered) or len(numbered) <= TOGETHER else ended[-1:]
        first = numbered[wanted[0]][0]
        choices = [self._choice(i, *numbered[i], first=first) for i in wanted]
        errors = [choice.error for choice in choices if choice.error is not None]
        # In a stream of several, an event's error has to say whose it is.
        of_several = ended is not None and len(numbered) > 1 and any(choice.token_ids for choice in choices)
        if errors and len(errors) == len(choices) and not of_several:
            return self.without_proofs(errors[0])
        return ToplocProofs(
            dtype=self.served.dtype,
            rounded_from=self.served.rounded_from,
            model=self.calls[0].model,
            model_revision=None if any(choice.weights for choice in choices) else self.served.revision,
            sampler=self.served.sampler if any(choice.seed is not None for choice in choices) else None,
            engine=self.served.engine,
            prompt=self._digest(first),
            choices=tuple(choices),
        )

    def plain_json(self, ended: Sequence[int] | None = None) -> bytes | None:
        """`proofs` in JSON, of an answer of one choice that has them and nothing out of the ordinary; else None."""
        if len(self.calls) != 1 or self.lost is not None or ended not in (None, [0]):
            return None
        [call] = self.calls
        choice = call.choices.get(0) if call.n == 1 else None
        if choice is None or not is_plain(choice):
            return None
        return written(self.served, call.model, self._digest(call), choice)

    def keep_receipts(self, proofs: ToplocProofs) -> None:
        """Each choice is signed once, however often it is sent."""
        numbered = self._numbered()
        for choice in proofs.choices or ():
            if choice.receipt is not None:
                call, child = numbered[choice.index]
                call.choices[child] = call.choices[child].model_copy(update={"receipt": choice.receipt})

    def _numbered(self) -> list[tuple[Call, int]]:
        return [(call, child) for call in self.calls for child in range(call.n)]

    def _choice(self, index: int, call: Call, child: int, *, first: Call) -> ChoiceProofs:
        choice = call.choices.get(child)
        if choice is None:
            error = call.refusal or ProofError(code="unfinished", message="the generation did not come to its end")
            return ChoiceProofs(index=index, token_ids=(), error=error)
        prompt = None if call is first else self._digest(call)
        return choice.model_copy(update={"index": index, "prompt": prompt})

    def _digest(self, call: Call) -> PromptDigest:
        if call.digest is None or call.digest.num_tokens != len(call.prompt_token_ids):
            ids, include_ids = call.prompt_token_ids, self.options.prompt_token_ids
            call.digest = PromptDigest.of(ids, include_ids=include_ids, media=call.media)
        return call.digest

    def without_proofs(self, error: ProofError) -> ToplocProofs:
        """The field of an answer that has none, for one reason."""
        return ToplocProofs(
            dtype=self.served.dtype,
            rounded_from=self.served.rounded_from,
            model=self.served.model,
            error=error,
        )


def to_error(error: ProofUnavailable) -> ProofError:
    return ProofError(code=error.code, message=str(error))


current: ContextVar[RequestContext | None] = ContextVar("toploc_request", default=None)
