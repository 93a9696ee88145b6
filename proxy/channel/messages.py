"""Messages of the side channel between API servers and workers, as MessagePack.

Decoding is typed: anything that is not one of these is refused before it is looked at.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

PROTOCOL: Final = 3
"""Of these messages. API servers and workers of one server have to have the same."""


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """An API server asks who answers on this socket."""


class Finalize(msgspec.Struct, tag="finalize", frozen=True):
    """Proofs of one choice, please; the capture is released whatever the answer.

    Attributes:
        inputs: the tokens that went in at the captured positions: the prompt's last, then all generated but the
            last. One proof is returned for every 32.
    """

    nonce: str
    child: int
    inputs: list[int]


class Discard(msgspec.Struct, tag="discard", frozen=True):
    """Nobody will ask for these proofs."""

    nonce: str
    children: list[int]


class CountSlots(msgspec.Struct, tag="count_slots", frozen=True):
    """How many captures do you hold?"""


class Logprobs(msgspec.Struct, frozen=True):
    """Log-probabilities that a response reports.

    Attributes:
        count: the likeliest tokens of each place of the answer beside its own; None if none are reported.
        prompt: the same of the prompt, whose rows are then captured too.
        given: tokens to report in place of the likeliest.
        raw: logits in place of log-probabilities.
    """

    count: int | None
    prompt: int | None = None
    given: list[int] = []
    raw: bool = False


class Masked(msgspec.Struct, frozen=True):
    """Which tokens are left at each place of an answer: a `toploc.tokens.masks.Masks`.

    Attributes:
        rows: int32 [k, words], at most `toploc.tokens.masks.MASK_BYTES`.
        raw, processed: int32, the number of each token's row.
    """

    rows: bytes
    raw: bytes
    processed: bytes


class Examine(msgspec.Struct, tag="examine", frozen=True):
    """What does the prefill under this nonce show of an answer? The prefill is forgotten whatever the reply.

    Attributes:
        prompt, token_ids: the prompt and the answer; what was prefilled is both, less the last token.
        sampling: the request's options as the JSON of a `toploc.tokens.sampling.Sampling`; None for no scores.
        adapter: the number of the LoRA adapter that it ran with.
        masks: None where all tokens are left everywhere.
    """

    nonce: str
    prompt: list[int]
    token_ids: list[int]
    sampling: str | None
    eos_token_ids: list[int]
    adapter: int | None = None
    logprobs: Logprobs | None = None
    masks: Masked | None = None


Request = Hello | Finalize | Discard | CountSlots | Examine


class Mode(msgspec.Struct, frozen=True):
    """How the engine computes, as the worker sees it; `toploc.engine.Facts` has what each is."""

    attention: str
    tensor_parallel: int
    pipeline_parallel: int
    execution: str
    kv_cache: str
    quantization: str | None
    device: str


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """What the worker captures and how."""

    protocol: int
    engine_version: str
    runner: str
    hidden_size: int
    dtype: Literal["bfloat16", "float16"]
    rounded_from: Literal["float32"] | None
    slots: int
    scores: bool = False
    sampler: str | None = None
    mode: Mode | None = None


class Proofs(msgspec.Struct, tag="proofs", frozen=True):
    """Proofs in chunk order, 258 bytes each.

    Attributes:
        weights: of each version of the weights that made a part of the answer: version, first token, and the one after
            the last. None at all: the version is 0 throughout.
    """

    proofs: list[bytes]
    weights: list[tuple[int, int, int]] = []


class Refusal(msgspec.Struct, tag="refusal", frozen=True):
    """Why there are no proofs; `code` as in `toploc_proofs.error`."""

    code: str
    message: str


class Done(msgspec.Struct, tag="done", frozen=True):
    """Discarded."""


class Slots(msgspec.Struct, tag="slots", frozen=True):
    """Captures that the worker can hold, and that it holds; how often its weights were replaced."""

    total: int
    in_use: int
    weights: int = 0


class Examined(msgspec.Struct, tag="examined", frozen=True):
    """Top-k points of every chunk of an answer, and scores of its tokens.

    Attributes:
        indices, patterns: int32 and uint16 [chunks, 128].
        rows: of each chunk.
        scores: the columns of a `toploc.tokens.scores.TokenScores`, float64; none if they were not asked for or not to
            be had.
        logprobs: the columns of a `toploc.tokens.logprobs.TokenLogprobs`, and of the prompt's with `prompt_` before the
            name.
    """

    indices: bytes
    patterns: bytes
    rows: list[int]
    scores: dict[str, bytes]
    logprobs: dict[str, bytes] = {}


Reply = Welcome | Proofs | Refusal | Done | Slots | Examined

encode: Final = msgspec.msgpack.Encoder().encode
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode

UNREADABLE: Final = (ValueError, RecursionError)
"""What bytes that are no message raise: msgspec's own errors are ValueErrors too, and so are those of bad UTF-8."""
