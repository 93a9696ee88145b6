"""How a verifier's own logits see the tokens of an answer, under the request's sampling options.

Sources: margins, with noise and without, as in DiFR (token-level difference to a reference sampler); the order of
processing and the masks as in vLLM (`vllm/v1/sample/sampler.py`, `ops/topk_topp_sampler.py`,
`model_executor/layers/utils.py` of 0.32).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from ..kernels.device import has_kernels
from .noise import noise_of
from .scores import COLUMNS, FARTHEST, POWERS, TokenScores

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .masks import Masks
    from .noise import Noise
    from .sampling import Sampling

ROWS: Final = 64
"""Of logits in float32 at once: with what the figures need of them about 300 MB at 128,000 tokens."""

SLACK: Final = 0.25
"""A token less than this many logits within what sampling leaves may have been left out by the server: `near` of the
default bounds (`toploc.thresholds.tokens`)."""


@torch.inference_mode()
def score_tokens(
    logits: Iterable[torch.Tensor],
    prompt: Sequence[int],
    token_ids: Sequence[int],
    sampling: Sampling,
    eos_token_ids: Collection[int],
    masks: Masks | None = None,
) -> TokenScores:
    """Score an answer from its logits, which come as tensors [rows, vocabulary], all rows together len(token_ids).

    They are left as they are. One tensor is held at a time, and of it `ROWS` rows in float32; on a GPU none, where no
    option changes the logits. All ids are below the vocabulary's size.

    1. Tokens that `masks` do not leave are forbidden.
    2. Before `min_tokens`, so are ends of the answer, but where nothing else is left.
    3. Add `logit_bias`.
    4. Penalties: repetition over prompt and answer so far, frequency and presence over the answer so far.
    5. Margins.
    6. Unless greedy: temperature, min-p, top-k, top-p; then the figures of the distribution that is left.
    7. With `sampling.seed` and a `sampling.sampler` that is known: the noise, and margins under it.
    """
    noise = None if sampling.greedy else noise_of(sampling.sampler, sampling.seed, len(prompt) - 1)
    parts: list[torch.Tensor] = []
    first = 0
    history: _History | None = None
    for part in logits:
        chosen = torch.tensor(token_ids[first : first + len(part)], device=part.device)
        if has_kernels(part) and noise is None and masks is None and _changes_nothing(sampling, first):
            parts.append(_table(_plain_figures(part, chosen, sampling)))
            first += len(part)
            continue
        history = history or _History(prompt, part.shape[1], part.device)
        for at in range(0, len(part), ROWS):
            block, tokens = part[at : at + ROWS].to(torch.float32, copy=True), chosen[at : at + ROWS]
            if masks is not None:  # 1
                masks.forbid(block, first)
            _forbid_ends(block, first, sampling, eos_token_ids)  # 2
            for token, bias in sampling.logit_bias.items():  # 3
                if token < block.shape[1]:
                    block[:, token] += bias
            history.penalise(block, tokens, sampling)  # 4
            parts.append(_table(_figures(block, tokens, sampling, noise, first)))  # 5-7
            first += len(block)
    return TokenScores.from_table(torch.cat(parts).cpu().numpy())


def _changes_nothing(sampling: Sampling, first: int) -> bool:
    """Whether the logits of tokens from number `first` on are sampled from as they are, temperature aside."""
    unpenalised = (
        sampling.repetition_penalty == 1 and sampling.frequency_penalty == 0 and sampling.presence_penalty == 0
    )
    untruncated = sampling.greedy or (sampling.min_p == 0 and sampling.top_k <= 0 and sampling.top_p == 1)
    return unpenalised and untruncated and not sampling.logit_bias and sampling.min_tokens <= first


def _table(figures: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The figures of rows side by side in the order of `COLUMNS`, float64 [rows, columns]."""
    parts = [figures[name].double().reshape(len(figures[name]), -1) for name in COLUMNS if name in figures]
    return torch.cat(parts, dim=1)


class _History:
    """Which tokens the prompt has, and how often each was generated: bool and float32 [vocabulary]."""

    def __init__(self, prompt: Sequence[int], size: int, device: torch.device) -> None:
        self.prompt = torch.zeros(size, dtype=torch.bool, device=device)
        self.prompt[torch.tensor(list(prompt), dtype=torch.long, device=device)] = True
        self.counts = torch.zeros(size, device=device)

    def penalise(self, block: torch.Tensor, chosen: torch.Tensor, sampling: Sampling) -> None:
        repetition = sampling.repetition_penalty
        if repetition == 1 and sampling.frequency_penalty == 0 and sampling.presence_penalty == 0:
            return
        for row, token in zip(block, chosen, strict=True):
            seen = self.prompt | (self.counts > 0)
            row[seen] = torch.where(row[seen] > 0, row[seen] / repetition, row[seen] * repetition)
            row -= sampling.frequency_penalty * self.counts
            row -= sampling.presence_penalty * (self.counts > 0)
            self.counts[token] += 1


def _forbid_ends(block: torch.Tensor, first: int, sampling: Sampling, eos_token_ids: Collection[int]) -> None:
    rows = sampling.min_tokens - first
    if rows > 0:
        ends = [token for token in {*eos_token_ids, *sampling.stop_token_ids} if 0 <= token < block.shape[1]]
        before = block[:rows, ends]
        block[:rows, ends] = -torch.inf
        # A grammar that has come to its end leaves nothing else (vllm/v1/sample/logits_processor/builtin.py).
        empty = torch.isneginf(block[:rows]).all(dim=-1, keepdim=True)
        block[:rows, ends] = torch.where(empty, before, -torch.inf)


def _plain_figures(logits: torch.Tensor, chosen: torch.Tensor, sampling: Sampling) -> dict[str, torch.Tensor]:
    """`_figures` of logits that no option changes, on a GPU."""
    from ..kernels.scores import plain_figures

    divisor, greedy = sampling.divisor, sampling.greedy
    return plain_figures(logits, chosen, divisor=divisor, greedy=greedy, powers=POWERS, farthest=FARTHEST)


def _figures(
    block: torch.Tensor, chosen: torch.Tensor, sampling: Sampling, noise: Noise | None, first: int
) -> dict[str, torch.Tensor]:
    """The columns of `TokenScores` by name, for rows of processed logits; `replay` where there is noise."""
    top, best = block.max(dim=-1)
    own = block.gather(1, chosen[:, None])[:, 0]
    margin = (top - own).clamp(max=FARTHEST)
    if sampling.greedy:
        nothing = torch.zeros_like(margin)
        rest = dict.fromkeys(("cut", "surprisal", "entropy", "variance", "tail"), nothing)
        return {
            "margin": margin,
            "best": best,
            "top": top,
            **rest,
            "cumulants": nothing[:, None].expand(-1, len(POWERS)),
        }
    scaled, beyond = _truncate(block / sampling.divisor, sampling)
    logp = scaled.log_softmax(dim=-1)
    kept = torch.isfinite(logp)
    least = logp.masked_fill(~kept, torch.inf).amin(dim=-1)
    inside = kept.gather(1, chosen[:, None])[:, 0]
    outside = sampling.divisor * beyond.gather(1, chosen[:, None])[:, 0]
    p = logp.exp()
    surprisal = -torch.where(inside, logp.gather(1, chosen[:, None])[:, 0], least)
    information = -logp.masked_fill(~kept, 0)
    entropy = (p * information).sum(dim=-1)
    figures = {
        "margin": margin,
        "best": best,
        "top": top,
        "cut": torch.where(inside, torch.zeros_like(own), outside.clamp(0, FARTHEST)),
        "surprisal": surprisal,
        "entropy": entropy,
        "variance": (p * (information - entropy[:, None]) ** 2).sum(dim=-1),
        "tail": (p * (logp <= -surprisal[:, None])).sum(dim=-1),
        "cumulants": torch.stack([((1 - power) * logp).logsumexp(dim=-1) for power in POWERS], dim=-1),
    }
    if noise is not None:
        noised = block + sampling.divisor * noise.rows(first, block.shape[0], block.shape[1], block.device)
        rivals = noised.masked_fill(~kept | (sampling.divisor * beyond > -SLACK), -torch.inf).amax(dim=-1)
        replay = rivals - noised.gather(1, chosen[:, None])[:, 0]
        figures["replay"] = replay.nan_to_num(0).clamp(0, FARTHEST)
    return figures


def _truncate(scaled: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits without those that min-p, top-k and top-p leave out; of equal logits at the k-th place all stay.

    Beside them, how far each is beyond: the difference of logits between it and the others that would put it on the
    border, below 0 within. For top-p, where a small difference in the mass of better tokens can let in one that is far
    less likely, that is logit(mass) - logit(top_p).
    """
    given = scaled
    beyond = torch.where(torch.isfinite(given), -torch.inf, torch.inf)
    if sampling.min_p > 0:
        beyond = given.amax(dim=-1, keepdim=True) + math.log(sampling.min_p) - given
        p = scaled.softmax(dim=-1)
        scaled = scaled.masked_fill(p < sampling.min_p * p.amax(dim=-1, keepdim=True), -torch.inf)
    if 0 < sampling.top_k < scaled.shape[1]:
        kth = scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
        beyond = beyond.maximum(kth - given)
        scaled = scaled.masked_fill(scaled < kth, -torch.inf)
    if sampling.top_p < 1:
        ascending, order = scaled.sort(dim=-1)
        p = ascending.softmax(dim=-1)
        # Of each token and all that are no better; of those that are out already, as of the least likely that is not.
        mass = p.cumsum(dim=-1).maximum(p.masked_fill(p == 0, 1).amin(dim=-1, keepdim=True)).clamp(max=1)
        past = torch.log1p(-mass) - mass.log() - math.log(sampling.top_p / (1 - sampling.top_p))
        beyond = beyond.maximum(torch.zeros_like(past).scatter(1, order, past))
        out = p.cumsum(dim=-1) <= 1 - sampling.top_p
        out[:, -1] = False
        scaled = scaled.masked_fill(torch.zeros_like(out).scatter(1, order, out), -torch.inf)
    return scaled, beyond
