"""Signs answers: one `Signer` for each API server, one `Signature` for each HTTP request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from toploc.receipts.keys import load_signing_keys
from toploc.receipts.output import shown_in
from toploc.receipts.receipt import issue
from toploc.receipts.request import body_sha256, request_digest

from .. import metrics
from ..log import RequestLogger
from ..stores.receipts import MemoryStore, SqliteStore
from .delivered import Delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from toploc.protocol import ToplocProofs
    from toploc.receipts.keys import PublicKey, SigningKey

    from ..settings import Settings
    from ..stores.receipts import ReceiptStore

INLINE: Final = 32 * 1024
"""Bytes of a request that are digested on the event loop, in well under a millisecond. A prompt of 100,000 token ids
takes 60 ms (docs/receipts.md), in a thread."""


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

    def sign_body(self, proofs: ToplocProofs, body: bytes) -> ToplocProofs:
        """The field of a JSON response."""
        try:
            response = orjson.loads(body)
            return self._sign(proofs, response, partial(shown_in, response))
        except Exception:
            return self._failed(proofs)

    def sign_event(self, proofs: ToplocProofs, head: Mapping[str, Any], index: int | None) -> ToplocProofs:
        """The field of an event that ends choice `index`, or the whole response.

        `head` has the response's id, and if it is one of /v1/responses, all else.
        """
        try:
            if "object" in head and index is None:
                return self._sign(proofs, head, partial(shown_in, head))
            return self._sign(proofs, head, self._delivered.choice)
        except Exception:
            return self._failed(proofs)

    def _sign(
        self, proofs: ToplocProofs, head: Mapping[str, Any], shown: Callable[[int], Mapping[str, Any]]
    ) -> ToplocProofs:
        """A receipt that is there stays: an event has choices again that ended before."""
        canonical, exact = self._digests or (None, None)
        unsigned = tuple(choice for choice in proofs.choices or () if choice.receipt is None)
        if not unsigned:
            return proofs
        issued = issue(
            self._signer.key,
            proofs.model_copy(update={"choices": unsigned}),
            head,
            request_sha256=canonical,
            request_body_sha256=exact,
            weights_sha256=self._signer.weights_sha256,
            shown=shown,
            issued_at=int(time.time()),
        )
        signed = {choice.index: choice for choice in issued.choices or ()}
        receipts = [choice.receipt for choice in signed.values() if choice.receipt is not None]
        if receipts:
            metrics.RECEIPTS.labels("signed").inc(len(receipts))
            documents = [receipt.model_dump_json(exclude_none=True) for receipt in receipts]
            self._signer.store.add(receipts[0].statement.response_id, documents)
        choices = tuple(signed.get(choice.index, choice) for choice in proofs.choices or ())
        return proofs.model_copy(update={"choices": choices})

    def _failed(self, proofs: ToplocProofs) -> ToplocProofs:
        metrics.RECEIPTS.labels("failed").inc()
        RequestLogger(self._request_id()).exception("signing an answer failed")
        return proofs


def _digests(body: bytes) -> tuple[str | None, str]:
    """Of a request's canonical form, if it has one, and of its bytes."""
    return request_digest(body), body_sha256(body)
