"""The tokens of an answer that carries no proofs, as far as its response tells them.

A text is one and its tokenisations are many: a model may say "foo" and "bar" where a tokenizer would say "foobar". Its
scores are of the tokens that it said, so only answers count whose tokens are known. Those are the ones that say their
ids or texts, and texts of as many tokens as `usage` says. Scores summed over tokenisations would need a prefill for
each, and the likeliest of them is mostly the tokenizer's own; docs/evidence.md has the share of answers that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .evidence import TokenIds

BROKEN: Final = "\ufffd"
"""In the text of a token that is a part of a character."""

UNSAID: Final = -9999.0
"""What servers write for a log-probability of -inf, or where they have none."""

COUNTS: Final = ("completion_tokens", "output_tokens")
"""Fields of `usage`, by route."""

PROMPT_COUNTS: Final = ("prompt_tokens", "input_tokens")

Source = Literal["ids", "logprobs", "text"]


class Tokenizer(Protocol):
    """Of the claimed model. Methods may be called on any thread."""

    @property
    def end(self) -> int | None:
        """The token that ends an answer by itself; None where several may."""

    def encode(self, text: str, /) -> list[int]:
        """Without tokens before or behind it."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool, /) -> str:
        """Their text."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Of one choice. `source`: what its tokens are known by. `problem`: a reason, and in words why they are not known;
    then there are none. `logprobs`: what the response reports of each token, in order; None if it does not."""

    source: Source
    token_ids: TokenIds = ()
    problem: tuple[str, str] | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a response says of one choice. `restructured`: as in `evidence.Answer`; `listed`: the choice as it stands
    there."""

    text: str | None
    finish_reason: str | None
    restructured: str | None
    listed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request has to do with how its answer is tokenised. `stops`: whether it has stop strings or tokens;
    `continues`: whether the answer goes on with a text, as a completion does."""

    stops: bool
    continues: bool


def tokenised(choices: Sequence[Said], usage: object, tokenizer: Tokenizer, asked: Asked) -> tuple[Tokenised, ...]:
    """The tokens of the choices of a response.

    1. Those whose ids the choice says (`token_ids`).
    2. Those whose texts it says, with their log-probabilities.
    3. Those that the tokenizer makes of the text, and the end where the answer stopped by itself; if they are as many
       as `usage` says, over all choices together. Servers count the end or do not.

    Reasons: `token_ids`, `restructured`, `stops`, `retokenised`, `count_unknown`, `count_differs`.
    """
    found = tuple(_of(choice, tokenizer, asked) for choice in choices)
    if all(one.problem or one.source != "text" for one in found):
        return found
    problem = _miscounted(choices, found, usage, tokenizer)
    if problem is None:
        return found
    return tuple(_without(one.source, *problem) if one.source == "text" and not one.problem else one for one in found)


def counted(usage: object, names: Sequence[str] = COUNTS) -> int | None:
    """The number under the first of the names that `usage` has; None if it says none."""
    values = [usage.get(name) for name in names] if isinstance(usage, dict) else []
    number = next((value for value in values if value is not None), None)
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**53 else None


def _of(choice: Said, tokenizer: Tokenizer, asked: Asked) -> Tokenised:
    logprobs = _logprobs(choice.listed.get("logprobs"))
    ids = choice.listed.get("token_ids")
    if ids is not None:  # 1
        if not _are_ids(ids):
            return _without("ids", "token_ids", "the ids of its tokens are none")
        values = logprobs[1] if logprobs is not None and len(logprobs[1]) == len(ids) else None
        return Tokenised("ids", tuple(ids), logprobs=values)
    if logprobs is not None and logprobs[0]:  # 2
        spelled = _spelled(logprobs[0], choice.text or "", tokenizer)
        if spelled is not None:
            return Tokenised("logprobs", spelled, logprobs=logprobs[1])
    return _retokenised(choice, tokenizer, asked)  # 3


def _retokenised(choice: Said, tokenizer: Tokenizer, asked: Asked) -> Tokenised:
    if choice.restructured:
        message = f"parts of it stand in `{choice.restructured}`, so that its text is not all of its tokens'"
        return _without("text", "restructured", message)
    stopped = choice.finish_reason == "stop"
    if asked.stops and stopped:
        message = "it may have ended at a stop of the request's, of which its text says nothing; ask without"
        return _without("text", "stops", message)
    text = choice.text or ""
    if asked.continues and tokenizer.decode([*tokenizer.encode("a"), *tokenizer.encode("a")], True) != "aa":
        message = (
            "the model's tokenizer puts a space before a text, so that the first token after a prompt is not known"
        )
        return _without("text", "retokenised", message)
    ids = tokenizer.encode(text)
    if tokenizer.decode(ids, True) != text or (not ids and not stopped):
        return _without("text", "retokenised", "the model's tokenizer does not make this text again of its own tokens")
    end = [tokenizer.end] if stopped and tokenizer.end is not None else []
    return Tokenised("text", (*ids, *end))


def _miscounted(
    choices: Sequence[Said], found: Sequence[Tokenised], usage: object, tokenizer: Tokenizer
) -> tuple[str, str] | None:
    count = counted(usage)
    if count is None:
        return "count_unknown", "`usage` does not say of how many tokens it is, so how it was tokenised is not known"
    stopped = sum(choice.finish_reason == "stop" for choice in choices)
    ends = sum(
        choice.finish_reason == "stop" and one.token_ids[-1:] == (tokenizer.end,)
        for choice, one in zip(choices, found, strict=True)
    )
    made = sum(len(one.token_ids) for one in found) - ends
    if any(one.problem for one in found) or count not in (made, made + stopped):
        return (
            "count_differs",
            f"the model's tokenizer makes {made} tokens of it, but for its end; `usage` says {count}",
        )
    return None


def _spelled(texts: Sequence[str], text: str, tokenizer: Tokenizer) -> TokenIds | None:
    """Ids of tokens by their texts; None where one has none of its own. A text that is a part of a character is that of
    many tokens: then it is the tokenizer's own for the answer, if all others are."""
    own = tokenizer.encode(text)
    if len(own) == len(texts) - 1 and tokenizer.end is not None:
        own = [*own, tokenizer.end]
    if len(own) == len(texts) and all(
        BROKEN in said or not said or tokenizer.decode([token], False) == said
        for token, said in zip(own, texts, strict=True)
    ):
        return tuple(own)
    ids = []
    for said in texts:
        spelled = tokenizer.encode(said)
        if len(spelled) != 1 or tokenizer.decode(spelled, False) != said:
            return None
        ids += spelled
    return tuple(ids)


def _logprobs(value: object) -> tuple[tuple[str, ...], tuple[float, ...]] | None:
    """Texts and log-probabilities of tokens, of a chat's choice or of a completion's; None if there are none."""
    if not isinstance(value, dict):
        return None
    content = value.get("content")
    pairs: list[tuple[Any, Any]]
    if isinstance(content, list):
        pairs = [(e.get("token"), e.get("logprob")) if isinstance(e, dict) else (None, None) for e in content]
    else:
        texts, numbers = value.get("tokens"), value.get("token_logprobs")
        if not isinstance(texts, list) or not isinstance(numbers, list) or len(texts) != len(numbers):
            return None
        pairs = list(zip(texts, numbers, strict=True))
    if not pairs or not all(isinstance(text, str) and _is_number(number) for text, number in pairs):
        return None
    return tuple(text for text, _ in pairs), tuple(float(number) for _, number in pairs)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_ids(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(type(token) is int and 0 <= token < 2**32 for token in value)


def _without(source: Source, reason: str, message: str) -> Tokenised:
    return Tokenised(source, problem=(reason, message))
