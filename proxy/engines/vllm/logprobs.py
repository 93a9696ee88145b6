"""How a rehearsed response lists log-probabilities: with a few more of the likeliest tokens than were asked for, since
the noise of another engine moves the border of the list (`toploc.evidence.alternatives`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toploc.evidence.alternatives import MORE, marked
from toploc.tokens.logprobs import TokenLogprobs

from ...verify.engine import Scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm.outputs import RequestOutput

    from .call import Call

LISTS: Final = ("logprobs", "prompt_logprobs")
"""Options of the engine that say how many of the likeliest tokens are listed of each place."""

LISTED: Final = ("top_logprobs", "prompt_logprobs")
"""Fields of responses that list them."""


def lengthen(route: str, body: dict[str, Any]) -> Mapping[str, int]:
    """Ask for `MORE` of the likeliest tokens in the body; the fields that list them, with how many it asked for."""
    option, asked = "logprobs" if route in ("completion", "generate") else "top_logprobs", {}
    for name, field_name in ((option, LISTED[0]), ("prompt_logprobs", LISTED[1])):
        count = body.get(name)
        # Of none there is no border, and of all there are no more.
        if type(count) is int and count > 0 and not (name == option and body.get("logprob_token_ids")):
            asked[field_name] = count
            body[name] = count + MORE
    if body.get("echo") and body.get("prompt_logprobs") is None and LISTED[0] in asked:
        asked[LISTED[1]] = asked[LISTED[0]]
    return asked


def unknown(token_ids: Sequence[int], call: Call) -> Scored:
    """In place of log-probabilities that the verifier does not have, so that a response has its form without them."""
    params = call.sampling_params
    answer = None if params.num_logprobs is None else _zeros(token_ids)
    return Scored(answer, None if params.prompt_logprobs is None else _zeros(call.token_ids[1:]))


def _zeros(token_ids: Sequence[int]) -> TokenLogprobs:
    ids, count = np.array(token_ids, dtype=np.int32), len(token_ids)
    return TokenLogprobs(ids[:, None], np.zeros((count, 1), dtype=np.float32), np.ones(count, dtype=np.int32))


def mark(output: RequestOutput) -> None:
    """Texts that several tokens of a place have, so that an object by text has all of them."""
    for places in (output.prompt_logprobs, *(choice.logprobs for choice in output.outputs)):
        for place in places or ():
            seen: set[str | None] = set()
            for number, (token, logprob) in enumerate((place or {}).items()):
                text = logprob.decoded_token
                if text in seen:
                    place[token] = replace(logprob, decoded_token=marked(text or "", number))
                seen.add(text)
