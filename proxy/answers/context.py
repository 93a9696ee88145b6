"""What the middleware and the wrapped `generate` know of one HTTP request."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toploc.protocol import ChoiceProofs, PromptDigest, ProofError, RequestOptions, ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from toploc.errors import ProofUnavailable


@dataclass(frozen=True, slots=True)
class Served:
    """What all answers of this server have in common."""

    model: str
    dtype: Literal["bfloat16", "float16"]
    rounded_from: Literal["float32"] | None
    sampler: str | None = None


@dataclass(slots=True)
class Call:
    """One call of `generate`: one prompt, `n` choices.

    Attributes:
        refusal: why this call cannot be proven, known before it starts.
        choices: by index, once their last token is out.
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


@dataclass(slots=True)
class RequestContext:
    """One HTTP request and the calls of `generate` it led to, in order.

    Attributes:
        settled: whether any choice has its proofs, or the reason why not. No event of a stream is ours before.
    """

    served: Served
    options: RequestOptions
    refusal: ProofError | None = None
    calls: list[Call] = field(default_factory=list)
    settled: bool = False

    @property
    def request_id(self) -> str:
        """The first call's, which the response's id is, or begins."""
        return next((call.request_id for call in self.calls), "")

    def proofs(self, index: int | None = None) -> ToplocProofs:
        """The response's field, or a stream event's if `index` names the choice that ends with it.

        Choices are numbered through: prompt by prompt in a completion with several, turn by turn in a response with
        tool calls.
        """
        numbered = [(call, child) for call in self.calls for child in range(call.n)]
        if index is not None and not 0 <= index < len(numbered):
            return self.without_proofs(
                ProofError(code="choice_unknown", message=f"no generation belongs to choice {index}")
            )
        wanted = range(len(numbered)) if index is None else [index]
        choices = [self._choice(i, *numbered[i], first=numbered[wanted[0]][0]) for i in wanted]
        errors = [choice.error for choice in choices if choice.error is not None]
        # In a stream of several, an event's error has to say whose it is.
        one_of_several = index is not None and len(numbered) > 1 and choices[0].token_ids
        if errors and len(errors) == len(choices) and not one_of_several:
            return self.without_proofs(errors[0])
        return ToplocProofs(
            dtype=self.served.dtype,
            rounded_from=self.served.rounded_from,
            model=self.calls[0].model,
            sampler=self.served.sampler if any(choice.seed is not None for choice in choices) else None,
            prompt=self._digest(numbered[wanted[0]][0]),
            choices=tuple(choices),
        )

    def _choice(self, index: int, call: Call, child: int, *, first: Call) -> ChoiceProofs:
        choice = call.choices.get(child)
        if choice is None:
            error = call.refusal or ProofError(code="unfinished", message="the generation did not come to its end")
            return ChoiceProofs(index=index, token_ids=(), error=error)
        prompt = None if call is first else self._digest(call)
        return choice.model_copy(update={"index": index, "prompt": prompt})

    def _digest(self, call: Call) -> PromptDigest:
        return PromptDigest.of(call.prompt_token_ids, include_ids=self.options.prompt_token_ids)

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
