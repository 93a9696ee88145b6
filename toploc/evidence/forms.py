"""What two kinds of engines write in ways of their own, where their tokens say the same.

A prover's word for its engine is not known to be true. So it never makes a leaf pass: by it a difference that another
engine's form explains is undecided, where else it would be rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ..leaves import Path, pattern_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..engine import Engine

TEXTS: Final = frozenset(("choices[].text", "choices[].message.content", "output[].content[].text", "content[].text"))
"""Where the text of tokens stands as it is, if no parser takes it apart."""

COUNTS: Final = frozenset(
    """choices choices[].index usage.prompt_tokens usage.completion_tokens usage.total_tokens usage.input_tokens
    usage.output_tokens""".split()  # noqa: SIM905
)
"""What every engine counts in the same way."""

REASONS: Final = frozenset(("choices[].finish_reason", "stop_reason"))

ENDS: Final = frozenset(("stop", "length", "end_turn", "max_tokens"))
"""Reasons to end that are every engine's."""

Kind = Literal["differs", "form", "unfinished"]


def is_other(prover: Engine | None, verifier: Engine | None) -> bool:
    """Whether the two are of different kinds, by the prover's word. Transformers follows vLLM's rules, as does an
    engine that says nothing of itself."""
    return _rules_of(prover) != _rules_of(verifier)


def _rules_of(engine: Engine | None) -> str:
    return "vllm" if engine is None or engine.name == "transformers" else engine.name


@dataclass(frozen=True, slots=True)
class Forms:
    """What is known of a response's texts, and of who wrote it.

    `texts`: what the tokens of each choice say, before any parser. `unfinished`: what some engines leave out at the end
    of such a text (`unfinished.py`). `other`: whether an engine of another kind answered, by its own word.
    """

    texts: Collection[str] = ()
    unfinished: Collection[str] = ()
    other: bool = False

    def kind(self, path: Path, claimed: object, rehearsed: object) -> Kind:
        """Of a difference: `unfinished` where one of two texts goes on with nothing but the end that some engines
        leave out; `form` where another engine's way of writing may explain it."""
        if isinstance(claimed, str) and isinstance(rehearsed, str):
            for end in self.unfinished:
                if end and (claimed + end == rehearsed or rehearsed + end == claimed):
                    return "unfinished"
        return "form" if self.other and not self._is_bound(path, claimed, rehearsed) else "differs"

    def _is_bound(self, path: Path, claimed: object, rehearsed: object) -> bool:
        """Whether all engines write this in the same way."""
        pattern = pattern_of(path)
        if pattern in REASONS:
            return claimed in ENDS and rehearsed in ENDS
        if pattern in TEXTS and isinstance(rehearsed, str):
            # With `echo` the prompt stands before it.
            whole = any(rehearsed.endswith(text) if text else not rehearsed for text in self.texts)
            return whole and bool(claimed or rehearsed)
        return pattern in COUNTS


def in_their_form(
    claimed: Mapping[str, Any], rehearsed: Mapping[str, Any], tokens: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """The rehearsed response of chats and completions, with the fields in which another kind of engine says the same.

    1. vLLM's `stop_reason` is SGLang's `matched_stop`, which also names the token that ends all of the model's texts.
    2. SGLang's `usage.reasoning_tokens` is 0 where nothing is reasoning; vLLM has no such count.
    3. SGLang's `metadata` says which weights made the first choice's tokens, and here the same made all of them.

    What is right follows from the rehearsal alone, whichever of the two the claimed one says.

    Args:
        tokens: token ids of the choices, by number.
    """
    made = dict(rehearsed)
    said = {choice.get("index"): choice for choice in _objects(claimed.get("choices"))}
    choices = _objects(rehearsed.get("choices"))
    if not choices or len(choices) != len(rehearsed["choices"]):
        return made
    made["choices"] = [_with_stop(said.get(one.get("index"), {}), one, tokens) for one in choices]  # 1
    usage, claimed_usage = rehearsed.get("usage"), claimed.get("usage")
    if isinstance(usage, dict) and isinstance(claimed_usage, dict):  # 2
        if usage.get("reasoning_tokens") == 0 and "reasoning_tokens" not in claimed_usage:
            made["usage"] = {name: value for name, value in usage.items() if name != "reasoning_tokens"}
        elif claimed_usage.get("reasoning_tokens") == 0 and not any(map(_reasons, [*choices, *said.values()])):
            made["usage"] = {"reasoning_tokens": 0, **usage}
    metadata = claimed.get("metadata")  # 3
    if metadata is None:
        made.pop("metadata", None)
    elif isinstance(metadata, dict) and "metadata" not in made:
        span = {"version": "", "start": 0, "end": len(tokens.get(0, ()))}
        whole = {"weight_version": "", "weight_versions": [span]}
        made["metadata"] = {name: value for name, value in whole.items() if name in metadata}
    return made


def _with_stop(
    claimed: Mapping[str, Any], choice: Mapping[str, Any], tokens: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    made = dict(choice)
    if "matched_stop" in made and "matched_stop" not in claimed:
        matched = made.pop("matched_stop")
        made["stop_reason"] = None if isinstance(matched, int) and claimed.get("stop_reason") is None else matched
    elif "matched_stop" in claimed and "matched_stop" not in made:
        reason = made.get("stop_reason") if "stop_reason" in claimed else made.pop("stop_reason", None)
        ends = made.get("finish_reason") != "length" and tokens.get(made.get("index", -1))
        made["matched_stop"] = tokens[made["index"]][-1] if reason is None and ends else reason
    return made


def _reasons(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("reasoning") or message.get("reasoning_content"))


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
