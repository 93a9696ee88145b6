"""Did the server answer this request's prompt?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..protocol import token_ids_sha256
from ..report import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evidence.evidence import Answer


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


def check_prompt(answer: Answer, rendered: Sequence[int], *, clock: bool = False) -> Check:
    """Compare the digest in the proofs with the verifier's own rendering of the request, as token ids.

    1. Both have the same number of tokens.
    2. SHA-256 over the ids, each a little-endian uint32, is the same.
    3. Where the server sent the ids, they are the verifier's too.

    A template that reads the clock (`clock`) renders another prompt at another time: then a difference accuses nobody.

    Reasons: `prompt_length`, `prompt_digest`, `prompt_token_ids`; undecided: `clock`.
    """
    claimed, digest = answer.prompt, token_ids_sha256(rendered)
    reason = None
    if claimed.num_tokens != len(rendered):  # 1
        reason = "prompt_length"
        message = f"the server answered a prompt of {claimed.num_tokens} tokens, the request's has {len(rendered)}"
    elif claimed.sha256 != digest:  # 2
        reason = "prompt_digest"
        message = f"the server answered another prompt than the request's, of as many tokens, {len(rendered)}"
    elif claimed.token_ids is not None and claimed.token_ids != tuple(rendered):  # 3
        reason = "prompt_token_ids"
        message = "the token ids that the server sent are not those of its own digest"
    else:
        message = f"the server answered the request's prompt, {len(rendered)} tokens"
    if reason and claimed.token_ids is not None:
        message += f"; {_difference(claimed.token_ids, rendered)}"
    if reason and clock:
        reason, message = "clock", f"{message}; the chat template reads the clock, so it may have been the request's"
    return Check(
        name="prompt",
        status="passed" if reason is None else "undecided" if reason == "clock" else "failed",
        choice=answer.index,
        reason=reason,
        message=message,
        figures={"num_tokens": claimed.num_tokens, "sha256": claimed.sha256},
        thresholds={"num_tokens": len(rendered), "sha256": digest},
    )


def _difference(claimed: Sequence[int], own: Sequence[int]) -> str:
    same = next((i for i, (a, b) in enumerate(zip(claimed, own, strict=False)) if a != b), min(len(claimed), len(own)))
    return f"the ids it sent are the request's up to token {same}"
