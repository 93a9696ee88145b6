"""Did the server answer this request's prompt?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..protocol import token_ids_sha256
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Answer
    from ..protocol import Media
    from ..report import Status


def matching_prompt(answer: Answer, rendered: Sequence[Sequence[int]]) -> Sequence[int]:
    """The rendering that the answer's digest is of, or the first.

    Content in parts may reach a template as a list or joined, depending on the template; both are the request's.
    """
    return next((ids for ids in rendered if token_ids_sha256(ids) == answer.prompt.sha256), rendered[0])


CLOCKS: Final = re.compile(r"\b(strftime_now|datetime|now\s*\()")
"""What a chat template calls for the time, which it then writes into the prompt."""


def reads_clock(template: object) -> bool:
    """Whether prompts of a chat template, or of one of several by name, may differ with the time."""
    listed = template.values() if isinstance(template, dict) else [template]
    return any(isinstance(text, str) and CLOCKS.search(text) for text in listed)


def check_prompt(
    answer: Answer,
    rendered: Sequence[int],
    *,
    clock: bool = False,
    other: bool = False,
    media: Sequence[Media] = (),
    carried: Container[str] = (),
) -> Check:
    """Compare the digests in the proofs with the verifier's own rendering of the request, token ids and `media`.

    0. Both have the same media, in the same order. Where they differ in what the request does not carry itself, by the
       digests `carried`, it may have changed since: that accuses nobody.
    1. Both have the same number of tokens.
    2. SHA-256 over the ids, each a little-endian uint32, is the same.
    3. Where the server sent the ids, they are the verifier's too.
    4. The media have the same places.

    A template that reads the clock (`clock`) renders another prompt at another time, and another kind of engine
    (`other`) may render some requests otherwise: then a difference in 1 to 4 accuses nobody.

    Reasons: `media_differ`, `prompt_length`, `prompt_digest`, `prompt_token_ids`; undecided: `media_changed`, `clock`,
    `other_engine`.
    """
    differs = _media_differ(answer.prompt.media or (), media, carried)  # 0
    if differs is not None:
        return _check(answer, rendered, media, *differs)
    reason, message = _tokens_differ(answer, rendered, media)  # 1-4
    if reason and answer.prompt.token_ids is not None:
        message += f"; {_difference(answer.prompt.token_ids, rendered)}"
    if reason and clock:
        message += "; the chat template reads the clock, so it may have been the request's"
        return _check(answer, rendered, media, "undecided", "clock", message)
    if reason and other:
        message += "; another kind of engine answered, which may render such a request otherwise"
        return _check(answer, rendered, media, "undecided", "other_engine", message)
    return _check(answer, rendered, media, "failed" if reason else "passed", reason, message)


def _tokens_differ(answer: Answer, rendered: Sequence[int], media: Sequence[Media]) -> tuple[str | None, str]:
    """The reason, None if the prompt is the request's, and the message."""
    claimed, count = answer.prompt, len(rendered)
    if claimed.num_tokens != count:  # 1
        return (
            "prompt_length",
            f"the server answered a prompt of {claimed.num_tokens} tokens, the request's has {count}",
        )
    if claimed.sha256 != token_ids_sha256(rendered):  # 2
        return "prompt_digest", f"the server answered another prompt than the request's, of as many tokens, {count}"
    if claimed.token_ids is not None and claimed.token_ids != tuple(rendered):  # 3
        return "prompt_token_ids", "the token ids that the server sent are not those of its own digest"
    if tuple(claimed.media or ()) != tuple(media):  # 4
        return "media_differ", "the server answered the request's media at other places of the prompt"
    shown = f" and {len(media)} media" if media else ""
    return None, f"the server answered the request's prompt, {count} tokens{shown}"


def _check(
    answer: Answer, rendered: Sequence[int], media: Sequence[Media], status: Status, reason: str | None, message: str
) -> Check:
    claimed = answer.prompt
    figures: dict[str, JsonValue] = {"num_tokens": claimed.num_tokens, "sha256": claimed.sha256}
    thresholds: dict[str, JsonValue] = {"num_tokens": len(rendered), "sha256": token_ids_sha256(rendered)}
    if claimed.media or media:
        figures["media"] = [*(one.sha256 for one in (claimed.media or ())[:SHOWN])]
        thresholds["media"] = [*(one.sha256 for one in media[:SHOWN])]
    return Check(
        name="prompt",
        status=status,
        choice=answer.index,
        reason=reason,
        message=message,
        figures=figures,
        thresholds=thresholds,
    )


SHOWN: Final = 16
"""Digests of media that a report repeats. Stops claims of thousands from filling reports."""


def _media_differ(
    claimed: Sequence[Media], own: Sequence[Media], carried: Container[str]
) -> tuple[Status, str, str] | None:
    """How the answered media and the request's differ, but for their places; None if they do not."""
    left = [(one.modality, one.sha256) for one in claimed]
    right = [(one.modality, one.sha256) for one in own]
    if left == right:
        return None
    as_many = len(left) == len(right)
    differing = [mine for his, mine in zip(left, right, strict=True) if his != mine] if as_many else right
    fetched = [sha256 not in carried for _, sha256 in differing]
    # Of other lists any item may be the one that is another: a video that is longer now is cut into more pieces.
    if all(fetched) if as_many else any(fetched):
        message = "what an address in the request leads to is not now, or not decoded here, what the server answered"
        return "undecided", "media_changed", message
    if as_many:
        return "failed", "media_differ", f"the server answered another {differing[0][0]} than the request's"
    return "failed", "media_differ", f"the server answered {len(left)} media, the request has {len(right)}"


def _difference(claimed: Sequence[int], own: Sequence[int]) -> str:
    same = next((i for i, (a, b) in enumerate(zip(claimed, own, strict=False)) if a != b), min(len(claimed), len(own)))
    return f"the ids it sent are the request's up to token {same}"
