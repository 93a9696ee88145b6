"""Answers that were given before: what this client remembers of the last ones, and what it says of those that come."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from toploc.report import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toploc.protocol import ToplocProofs

    from .exchange import Exchange

REMEMBERED: Final = 10_000
"""Ids, receipts and lists of proofs of a client, each; about 100 bytes of each. Bounds its memory."""

CLOCKS: Final = 300.0
"""Seconds by which the clocks of client and server may differ."""


class Seen:
    """The last names, each with a digest of what it was the name of."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    def before(self, name: bytes, what: bytes) -> bytes | None:
        """What had this name before, if anything; from now on it is the name of `what`."""
        known = self._known.get(name)
        self._known.setdefault(name, what)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return known


class Replays:
    """Holds each answer against those before it. Methods may be called by any number of threads."""

    def __init__(self) -> None:
        self._ids, self._receipts, self._proofs = Seen(), Seen(), Seen()
        self._lock = threading.Lock()

    def checks(self, exchange: Exchange, proofs: ToplocProofs | None, sent_at: float | None) -> list[Check]:
        """What is wrong with an answer, or odd.

        1. Its id or one of its receipts was another request's: failed. The same request's: undecided, since a cache
           may have answered.
        2. The proofs of a choice were given for another prompt: failed. For the same: weak, since whoever says the same
           tokens has the same proofs.
        3. A receipt is older than the request, by more than clocks differ: undecided, since a clock may be wrong.
        """
        with self._lock:
            return list(self._checks(exchange, proofs, sent_at))

    def _checks(self, exchange: Exchange, proofs: ToplocProofs | None, sent_at: float | None) -> Iterator[Check]:
        request = sha256(exchange.request).digest()
        name = exchange.parsed().get("id")
        if isinstance(name, str) and name:
            yield from _repeated("id", self._ids.before(_digest(name), request), request)
        for choice in (proofs.choices or ()) if proofs is not None else ():
            receipt, prompt = choice.receipt, choice.prompt or (proofs.prompt if proofs is not None else None)
            if receipt is not None:
                before = self._receipts.before(_digest(receipt.signature), request)
                yield from _repeated("receipt", before, request, choice=choice.index)
                if sent_at is not None and receipt.statement.issued_at < sent_at - CLOCKS:
                    old = sent_at - receipt.statement.issued_at
                    message = f"the receipt is {old:,.0f} s older than the request: a replay, or a clock that is wrong"
                    yield _check("undecided", "issued_before_request", message, choice.index)
            if choice.proofs and prompt is not None:
                what = bytes.fromhex(prompt.sha256)
                before = self._proofs.before(_digest("\n".join(choice.proofs)), what)
                if before is not None and before != what:
                    yield _check("failed", "replayed", "these proofs were given for another prompt", choice.index)
                elif before is not None:
                    yield _check("weak", "same_proofs", "these proofs were given before, for this prompt", choice.index)


def _repeated(what: str, before: bytes | None, request: bytes, choice: int | None = None) -> Iterator[Check]:
    if before is None:
        return
    if before != request:
        yield _check("failed", "replayed", f"its {what} was that of an answer to another request", choice)
    else:
        message = f"its {what} was that of an earlier answer to this request: a replay, or a cache"
        yield _check("undecided", "replayed", message, choice)


def _check(status: Any, reason: str, message: str, choice: int | None) -> Check:
    return Check(name="response", status=status, choice=choice, reason=reason, message=message)


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()
