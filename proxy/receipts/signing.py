"""Signs answers: one `Signer` for each API server, one `Signature` for each HTTP request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from toploc.evidence.assembly import LAST
from toploc.receipts.keys import load_signing_keys
from toploc.receipts.request import body_sha256, request_digest
from toploc.receipts.signed import fields_in
from toploc.receipts.statement import issue

from .. import metrics
from ..log import RequestLogger
from ..stores.receipts import MemoryStore, SqliteStore
from .delivered import Delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey, SigningKey

    from ..settings import Settings
    from ..stores.receipts import ReceiptStore

INLINE: Final = 32 * 1024
"""Bytes of a request or a response that are digested on the event loop. A prompt of 100,000 token ids takes 60 ms
(docs/receipts.md), in a thread."""

INLINE_STREAM: Final = 256 * 1024
"""The same of a stream's events, most of which are the same in each."""

Said = tuple["Mapping[str, Any]", "Sequence[str] | None"]
"""A response as far as it was delivered, and its fields that are known (`issue`)."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Attributes:
    key: signs.
    keys: the public halves of it and of its predecessors.
    weights_sha256: the digest of the weights that the server was started with, if it has one.
    """

    key: SigningKey
    keys: tuple[PublicKey, ...]
    store: ReceiptStore
    weights_sha256: str | None = None

    @classmethod
    def of(cls, settings: Settings, weights_sha256: str | None = None) -> Self | None:
        """None if the server has no key. Raises InvalidKey or StoreError."""
        if not settings.signing_keys:
            return None
        key, keys = load_signing_keys(list(settings.signing_keys))
        store = SqliteStore(settings.receipts) if settings.receipts else MemoryStore()
        return cls(key, keys, store, weights_sha256)


class Signature:
    """Makes the receipts of one HTTP request's answer. Whatever goes wrong here, the answer is delivered.

    Args:
        body: the request's.
        request_id: the engine's, for the log, once there is one.
    """

    def __init__(self, signer: Signer, body: bytes, request_id: Callable[[], str]) -> None:
        self._signer = signer
        self._body = body
        self._request_id = request_id
        self._delivered = Delivered()
        self._digests: tuple[str | None, str] | None = None
        self.keep = self._delivered.keep

    async def prepare(self) -> None:
        """Digests the request, once; after this, `sign` only computes on what the answer is made of."""
        if self._digests is None:
            inline = len(self._body) <= INLINE
            self._digests = _digests(self._body) if inline else await asyncio.to_thread(_digests, self._body)
            self._body = b""  # an answer that is fetched later keeps this object

    async def sign_body(self, proofs: ToplocProofs, body: bytes, *, is_kept: bool) -> ToplocProofs:
        """The field of a JSON response. One that `is_kept` others may fetch meanwhile, and it is signed once: it is
        signed at once."""
        return await self._sign(proofs, lambda: (orjson.loads(body), None), is_large=len(body) > INLINE and not is_kept)

    async def sign_event(self, proofs: ToplocProofs, head: Mapping[str, Any], index: int | None) -> ToplocProofs:
        """The field of an event that ends choice `index`, or the whole response.

        `head` has the response's id, and if it is one of /v1/responses, all else.
        """
        if "object" in head and index is None:
            return await self._sign(proofs, lambda: (head, None), is_large=False)
        unsigned = [choice.index for choice in proofs.choices or () if choice.receipt is None]
        wanted = index if unsigned == [index] else None
        return await self._sign(
            proofs, lambda: self._said(head, index, wanted), is_large=self._delivered.size > INLINE_STREAM
        )

    def _said(self, head: Mapping[str, Any], index: int | None, wanted: int | None) -> Said:
        """After the end of a choice a stream may have more to say of all of them together, such as `usage`."""
        response = self._delivered.response(wanted)
        if response is None:
            return _named(head, index), ()
        if index is None:
            return response, None
        return response, tuple(name for name in fields_in(response, index) if name not in LAST)

    async def _sign(self, proofs: ToplocProofs, said: Callable[[], Said], *, is_large: bool) -> ToplocProofs:
        """A receipt that is there stays: an event has choices again that ended before."""
        unsigned = tuple(choice for choice in proofs.choices or () if choice.receipt is None)
        if not unsigned:
            return proofs
        part = proofs.model_copy(update={"choices": unsigned})
        try:
            issued = await asyncio.to_thread(self._issued, part, said) if is_large else self._issued(part, said)
            signed = {choice.index: choice for choice in issued.choices or ()}
            receipts = [choice.receipt for choice in signed.values() if choice.receipt is not None]
            if receipts:
                metrics.RECEIPTS.labels("signed").inc(len(receipts))
                documents = [receipt.model_dump_json(exclude_none=True) for receipt in receipts]
                self._signer.store.add(receipts[0].statement.response_id, documents)
        except Exception:
            metrics.RECEIPTS.labels("failed").inc()
            RequestLogger(self._request_id()).exception("signing an answer failed")
            return proofs
        choices = tuple(signed.get(choice.index, choice) for choice in proofs.choices or ())
        return proofs.model_copy(update={"choices": choices})

    def _issued(self, proofs: ToplocProofs, said: Callable[[], Said]) -> ToplocProofs:
        canonical, exact = self._digests or (None, None)
        response, fields = said()
        return issue(
            self._signer.key,
            proofs,
            response,
            request_sha256=canonical,
            request_body_sha256=exact,
            weights_sha256=self._signer.weights_sha256,
            fields=fields,
            issued_at=int(time.time()),
        )


def _named(head: Mapping[str, Any], index: int | None) -> dict[str, Any]:
    """Which response and choice an event is of, and why it ended: what it says itself is a part of the whole."""
    named = {name: head[name] for name in ("id", "request_id", "created") if name in head}
    ended = [{"index": index, "finish_reason": head["choices"][0]["finish_reason"]}] if index is not None else []
    return {**named, "choices": ended}


def _digests(body: bytes) -> tuple[str | None, str]:
    """Of a request's canonical form, if it has one, and of its bytes."""
    return request_digest(body), body_sha256(body)
