"""What a client does with each answer: stores it, chooses, asks verifiers, reacts."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.file import EvidenceFile
from toploc.protocol import FIELD_NAME, ToplocProofs
from toploc.report import Check, printable

from . import share
from .background import Background
from .errors import MissingProofs, RejectedResponse
from .exchange import Memory
from .judgement import Judgement
from .log import logger
from .verifiers import NamedVerifier

if TYPE_CHECKING:
    from .exchange import Exchange
    from .options import Options


@dataclass
class Counts:
    """How answers of a client fared. `unchecked` were not chosen, or have no proofs; `spooled` wait in a file; `lost`
    could neither be checked nor be written there."""

    accepted: int = 0
    rejected: int = 0
    unchecked: int = 0
    spooled: int = 0
    lost: int = 0


class Checker:
    """The options of a client at work; shared by its copies unless they change one."""

    def __init__(self, options: Options, parent: Checker | None = None) -> None:
        self.options = options
        self.memory = Memory()
        self.counts = Counts()
        self.seed = options.audit_seed if options.audit_seed is not None else secrets.token_hex(16)
        self._keys = options.keys()
        self._verifiers: list[NamedVerifier]
        if parent is not None and parent.options.verifier is options.verifier:
            self._verifiers = parent._verifiers
        else:
            self._verifiers = [NamedVerifier(verifier, options.verifier_api_key) for verifier in options.verifiers]
        self._evidence = None if options.evidence is None else EvidenceFile(options.evidence)
        self._background: Background | None = None
        self._lock = threading.Lock()

    @property
    def keeps_streams(self) -> bool:
        """Whether the response that a stream adds up to may be wanted."""
        return bool(self._evidence or self._verifiers or self._keys)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done with answers."""
        return not (self.keeps_streams or self.options.require_proofs)

    def with_changes(self, changes: dict[str, Any]) -> Checker:
        changed = Checker(self.options.with_changes(changes), self)
        if "audit_seed" not in changes:
            changed.seed = self.seed
        return changed

    def chosen(self, response_id: str | None) -> bool:
        """Whether the answer of this id is checked. A share `audit_rate` is, drawn as `share.py` says; one without id
        always is."""
        return response_id is None or share.chosen(self.options.audit_rate, self.seed, response_id)

    def finish(self, exchange: Exchange | None, response: Any, proofs: ToplocProofs | None) -> None:
        """Does what the options say with an answer that is whole. Raises RejectedResponse and MissingProofs."""
        if self._begin(exchange, response, proofs) and exchange is not None:
            if self.options.when == "inline":
                self._react(exchange, response, self.judge(exchange))
            else:
                self._submit(exchange, response)

    async def finish_async(self, exchange: Exchange | None, response: Any, proofs: ToplocProofs | None) -> None:
        """See `finish`. A function of `on_reject` may be a coroutine function."""
        if self._begin(exchange, response, proofs) and exchange is not None:
            if self.options.when == "inline":
                pending = self._react(exchange, response, await self.judge_async(exchange))
                if inspect.isawaitable(pending):
                    await pending
            else:
                self._submit(exchange, response)

    def leave(self, exchange: Exchange | None, response: Any, proofs: ToplocProofs | None) -> None:
        """Checks in the background an answer that nobody waits for: of a stream that was left after its proofs, or
        where the SDK does not await."""
        try:
            if self._begin(exchange, response, proofs) and exchange is not None:
                self._submit(exchange, response)
        except ToplocError as error:
            logger.warning("toploc: %s", error)

    def judge(self, exchange: Exchange) -> Judgement:
        """Raises ToplocError where there is no verifier."""
        receipts = self._receipts(exchange)
        self._require_verifiers()
        return Judgement.by(self.options.rule, [named.ask(exchange.evidence) for named in self._verifiers], receipts)

    async def judge_async(self, exchange: Exchange) -> Judgement:
        """See `judge`; all verifiers are asked at once."""
        receipts = self._receipts(exchange)
        self._require_verifiers()
        opinions = await asyncio.gather(*(named.ask_async(exchange.evidence) for named in self._verifiers))
        return Judgement.by(self.options.rule, opinions, receipts)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits for the checks in the background, up to `timeout` seconds; whether all are done."""
        return self._background is None or self._background.flush(timeout)

    def close(self) -> None:
        """Finishes checks in the background, or spools them after ten seconds."""
        if self._background is not None:
            self._background.close()
        for named in self._verifiers:
            named.close()

    async def close_async(self) -> None:
        """See `close`."""
        await asyncio.to_thread(self.close)
        await asyncio.gather(*(named.close_async() for named in self._verifiers))

    def _begin(self, exchange: Exchange | None, response: Any, proofs: ToplocProofs | None) -> bool:
        """Whether the answer is to be checked, and what comes before.

        1. Stores it, whatever it is.
        2. Raises MissingProofs where proofs are required and there are none. A malformed field goes on to be rejected.
        3. Draws, unless receipts alone are checked, which costs no verifier anything.
        """
        if exchange is not None:  # 1
            self.memory.remember(response, exchange)
            if self._evidence is not None:
                try:
                    self._evidence.append_json(exchange.evidence)
                except ToplocError as error:  # a full disk is no reason to lose an answer
                    logger.error("toploc: %s", error)
        if proofs is None or proofs.choices is None:  # 2
            malformed = exchange is not None and proofs is None and FIELD_NAME in exchange.parsed()
            if not malformed:
                self._missing(response, proofs)
                self._count("unchecked")
                return False
        if not (self._verifiers or self._keys) or exchange is None:
            return False
        if self._keys and not self._verifiers:  # 3
            return True
        response_id = exchange.parsed().get("id")
        if self.chosen(response_id if isinstance(response_id, str) else None):
            return True
        self._count("unchecked")
        return False

    def _missing(self, response: Any, proofs: ToplocProofs | None) -> None:
        if self.options.require_proofs:
            error = proofs.error if proofs is not None else None
            if error is not None:
                raise MissingProofs(response, error.code, error.message)
            raise MissingProofs(response, None, "the server sent none; is it `toploc serve`?")

    def _react(self, exchange: Exchange, response: Any, judgement: Judgement) -> object:
        if judgement.accepted:
            self._count("accepted")
        elif judgement.open:
            self._spool(exchange)
            logger.warning("toploc: an answer could not be checked and waits in the spool\n%s", judgement)
        else:
            self._count("rejected")
            reaction = self.options.reaction
            if reaction == "raise":
                raise RejectedResponse(response, judgement)
            if callable(reaction):
                return reaction(response, judgement)
            logger.warning("toploc: %s", judgement)
        return None

    def _submit(self, exchange: Exchange, response: Any) -> None:
        with self._lock:
            if self._background is None:
                self._background = Background(self._check, self._spool, self.options.queue_size)
        self._background.submit(exchange, response)

    def _check(self, exchange: Exchange, response: Any) -> None:
        try:
            judgement = self.judge(exchange)
        except Exception:
            logger.exception("toploc: an answer could not be checked")
            self._spool(exchange)
            return
        try:
            pending = self._react(exchange, response, judgement)
            if inspect.iscoroutine(pending):
                asyncio.run(pending)
        except RejectedResponse as error:  # a stream that was left: nobody is there to catch it
            logger.warning("toploc: %s", error)
        except Exception:  # of the application's function; the thread has others to check
            logger.exception("toploc: on_reject failed")

    def _spool(self, exchange: Exchange) -> None:
        path = self.options.spool_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            EvidenceFile(path).append_json(exchange.evidence)
            self._count("spooled")
        except (ToplocError, OSError) as error:
            self._count("lost")
            name = printable(str(exchange.parsed().get("id")))
            logger.error("toploc: answer %s was not checked and is lost: %s", name, error)

    def _count(self, outcome: str) -> None:
        with self._lock:
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)

    def _receipts(self, exchange: Exchange) -> list[Check]:
        """A check for each choice, if keys are trusted; a choice without a receipt has not passed."""
        if not self._keys:
            return []
        from toploc.receipts.receipt import verify_receipt

        try:
            results = verify_receipt(json.loads(exchange.request), exchange.parsed(), self._keys)
        except MalformedEvidence as error:
            return [Check(name="receipt", status="undecided", reason="malformed", message=str(error))]
        return [
            Check(name="receipt", status=r.status, choice=r.choice, reason=r.reason, message=r.message) for r in results
        ]

    def _require_verifiers(self) -> None:
        if not self._verifiers and not self._keys:
            raise ToplocError("verifier: none was given to this client")
