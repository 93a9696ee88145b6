"""Log-probabilities in a rehearsed response, in the form that SGLang's engine hands them to its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toploc.evidence.alternatives import MORE, marked
from toploc.tokens.logprobs import TokenLogprobs

from ...channel.messages import Logprobs
from ...verify.engine import Scored
from .sampling import changes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...verify.engine import Claim

LISTED: Final = "top_logprobs"
"""The field of responses that lists the likeliest tokens."""

Entry = tuple[float, int, str]
"""A log-probability, its token, and that token's text."""


def wanted(request: Any) -> Logprobs | None:
    """Those that a response to a TokenizedGenerateReqInput reports; None where it has none, or has others than the
    model's own.

    SGLang reports them after the options that change logits, and after the temperature, unless the server's operator
    has set SGLANG_RETURN_ORIGINAL_LOGPROB (sglang/srt/layers/sampler.py). With the temperature 1 they are the same.
    """
    params = request.sampling_params
    is_plain = params.top_k == 1 or params.temperature == 1
    if not request.return_logprob or not is_plain or changes_of(request) or request.token_ids_logprob:
        return None
    count = request.top_logprobs_num
    return Logprobs(count + MORE if count else 0)


def unknown(claim: Claim) -> Scored:
    """In place of those that the verifier does not have, so that a response has its form without them."""
    ids, count = np.array(claim.token_ids, dtype=np.int32), len(claim.token_ids)
    zeros = np.zeros((count, 1), dtype=np.float32)
    return Scored(TokenLogprobs(ids[:, None], zeros, np.ones(count, dtype=np.int32)))


class Reported:
    """Of one choice.

    Args:
        tokenizer: the manager's.
        by_text: whether the route makes an object of the likeliest tokens by their text, which has one value for all
            of a text.
    """

    def __init__(self, scored: TokenLogprobs, tokenizer: Any, *, lists: bool, by_text: bool) -> None:
        self._ids, self._values = scored.ids.tolist(), scored.values.tolist()
        texts = tokenizer.batch_decode([[token] for row in self._ids for token in row])
        width = scored.ids.shape[1]
        self._texts = [texts[at : at + width] for at in range(0, len(texts), width)]
        self._lists, self._by_text = lists, by_text

    def said(self, first: int, end: int) -> dict[str, Any]:
        """What an output's `meta_info` has of the tokens from the first on, of so many until now
        (TokenizerManager.add_logprob_to_meta_info in sglang/srt/managers/tokenizer_manager.py)."""
        rows = [self._row(place) for place in range(first, end)]
        said: dict[str, Any] = {
            "input_token_logprobs": [],
            "output_token_logprobs": [row[0] for row in rows],
            "output_token_logprobs_length": end,
        }
        if self._lists:
            said["output_top_logprobs"] = [self._listed(row[1:]) for row in rows]
        return said

    def _row(self, place: int) -> list[Entry]:
        return list(zip(self._values[place], self._ids[place], self._texts[place], strict=True))

    def _listed(self, row: Sequence[Entry]) -> list[Entry]:
        if not self._by_text:
            return list(row)
        seen: set[str] = set()
        listed = []
        for number, (value, token, text) in enumerate(row):
            listed.append((value, token, marked(text, number) if text in seen else text))
            seen.add(text)
        return listed
