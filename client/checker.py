"""What a client does with each answer: stores it, chooses, asks verifiers, reacts."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import threading
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.file import EvidenceFile
from toploc.foreign import printable, quote
from toploc.protocol import FIELD_NAME, ToplocProofs
from toploc.report import Check

from . import share
from .asked import Asked
from .background import Background
from .errors import MissingProofs, RejectedResponse, UnacceptedResponse, UndecidedResponse
from .exchange import Exchange, Memory
from .judgement import Judgement
from .log import logger
from .replays import Replays
from .routes import is_answer
from .seeds import NONE, held, withheld
from .verifiers import NamedVerifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .options import Options
    from .routes import Sent

SAYS_NOTHING: Final = frozenset(("queued", "in_progress", "failed", "cancelled"))
"""What a response without output says of itself that has none yet, or never."""


@dataclass
class Counts:
    """How answers of a client fared. `undecided` could not be judged. `unchecked` were not chosen, or have no proofs,
    or were left before these came; an answer that is proven in part is counted there too. `spooled` wait in a file;
    `lost` could neither be checked nor be written there."""

    accepted: int = 0
    rejected: int = 0
    undecided: int = 0
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
        self.sampler: str | None = None
        """That the server names (`seeds.sampler_in`); None before it was asked."""
        self._keys = options.keys()
        self._verifiers: list[NamedVerifier]
        if parent is not None and parent.options.verifier is options.verifier:
            self._verifiers = parent._verifiers
        else:
            self._verifiers = [NamedVerifier(verifier, options.verifier_api_key) for verifier in options.verifiers]
        if parent is not None:
            self.sampler = parent.sampler
        self._replays: Replays = parent._replays if parent is not None else Replays()
        self._asked: Asked = parent._asked if parent is not None else Asked()
        self._evidence = None if options.evidence is None else EvidenceFile(options.evidence)
        self._background: Background | None = None
        self._numbers = count()
        self._lock = threading.Lock()

    @property
    def verifies(self) -> bool:
        """Whether answers are checked, by anybody."""
        return bool(self._verifiers or self._keys)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done with answers."""
        return not (self._evidence or self.verifies or self.options.require_proofs)

    def with_changes(self, changes: dict[str, Any]) -> Checker:
        changed = Checker(self.options.with_changes(changes), self)
        if "audit_seed" not in changes:
            changed.seed = self.seed
        return changed

    def chosen(self, number: int, exchange: Exchange) -> bool:
        """Whether the answer of this number is checked. A share `audit_rate` is, drawn as `share.py` says: by what the
        server does not know (the seed) and cannot choose alone (number, request and response)."""
        return share.chosen(self.options.audit_rate, self.seed, f"{number}:{sha256(exchange.evidence).hexdigest()}")

    def finish(
        self,
        exchange: Exchange | None,
        response: Any,
        proofs: ToplocProofs | None,
        sent: Sent | None = None,
        seen: Sequence[Check] = (),
    ) -> None:
        """Does what the options say with an answer that is whole, of which `seen` is known already.

        Raises UnacceptedResponse.
        """
        given = self._begin(exchange, response, proofs, sent, seen)
        if given is not None:
            if self.options.when == "inline":
                self._react(given.exchange, response, self._judge(given))
            else:
                self._submit(given, response)

    async def finish_async(
        self,
        exchange: Exchange | None,
        response: Any,
        proofs: ToplocProofs | None,
        sent: Sent | None = None,
        seen: Sequence[Check] = (),
    ) -> None:
        """See `finish`. A function of `on_reject` or `on_undecided` may be a coroutine function."""
        given = self._begin(exchange, response, proofs, sent, seen)
        if given is not None:
            if self.options.when == "inline":
                pending = self._react(given.exchange, response, await self._judge_async(given))
                if inspect.isawaitable(pending):
                    await pending
            else:
                self._submit(given, response)

    def leave(
        self,
        exchange: Exchange | None,
        response: Any,
        proofs: ToplocProofs | None,
        sent: Sent | None = None,
        seen: Sequence[Check] = (),
    ) -> None:
        """Checks in the background an answer that nobody waits for: of a stream that was left after its proofs."""
        try:
            given = self._begin(exchange, response, proofs, sent, seen)
            if given is not None:
                self._submit(given, response)
        except ToplocError as error:
            self._warn(str(error))

    def unchecked(self, response: Any, why: str, *, raises: bool = True) -> None:
        """Of an answer that reaches the application and cannot be checked. Raises MissingProofs where they are required
        and somebody is there to catch it."""
        if raises and self.options.requires_proofs:
            raise MissingProofs(response, None, why)
        self._count("unchecked")
        if self.verifies:
            self._warn(f"an answer was not checked: {why}")

    def judge(self, exchange: Exchange) -> Judgement:
        """Raises ToplocError where there is no verifier."""
        self._require_verifiers()
        return self._judge(_Given(exchange, tuple(self._receipts(exchange))))

    async def judge_async(self, exchange: Exchange) -> Judgement:
        """See `judge`; all verifiers are asked at once."""
        self._require_verifiers()
        return await self._judge_async(_Given(exchange, tuple(self._receipts(exchange))))

    def _judge(self, given: _Given) -> Judgement:
        opinions = [named.ask(given.evidence) for named in self._verifiers]
        return Judgement.by(self.options.rule, opinions, given.own, unproven=given.unproven)

    async def _judge_async(self, given: _Given) -> Judgement:
        opinions = await asyncio.gather(*(named.ask_async(given.evidence) for named in self._verifiers))
        return Judgement.by(self.options.rule, opinions, given.own, unproven=given.unproven)

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

    def _begin(
        self,
        exchange: Exchange | None,
        response: Any,
        proofs: ToplocProofs | None,
        sent: Sent | None,
        seen: Sequence[Check],
    ) -> _Given | None:
        """What is to be judged of an answer, None if nothing is. What comes before:

        1. A reply that says nothing, of a response in the background, is let pass. Requests are kept for responses that
           are fetched later.
        2. The answer is stored, whatever it is.
        3. It is checked here: against the request, those before it, and the trusted keys. Where that finds anything,
           it is judged whatever follows.
        4. MissingProofs is raised where proofs are required and there are none. A malformed field goes on to be
           rejected.
        5. It is drawn.
        """
        parsed: Mapping[str, Any] = {} if exchange is None else exchange.parsed()
        if sent is not None and exchange is not None:
            self.keep(parsed.get("id"), sent)
            if _says_nothing(parsed):  # 1
                return None
            if sent.kind is None:
                if not is_answer(parsed):
                    return None
                sent = replace(sent, body=self._asked.get(sent.fetches or str(parsed.get("id"))) or b"")
                exchange = Exchange(sent.body or b"null", exchange.response)
        if exchange is not None:  # 2
            self.memory.remember(response, exchange)
            if self._evidence is not None:
                try:
                    self._evidence.append_json(exchange.evidence)
                except ToplocError as error:  # a full disk is no reason to lose an answer
                    logger.error("toploc: %s", printable(str(error)))
        has_field = FIELD_NAME in parsed
        own = [*seen]  # 3
        if exchange is not None and (proofs is not None or has_field or self._keys):
            own += [] if any(check.reason == "unfinished" for check in seen) else _against(sent, parsed)
            own += _another(sent, parsed)
            if sent is None or sent.kind is not None:  # what is fetched may be fetched again
                own += self._replays.checks(exchange, proofs, sent.at if sent is not None else None)
            own += self._receipts(exchange)
        if sent is not None and proofs is not None and self.sampler not in (None, "", NONE):
            own += [] if held(sent.parsed(), proofs) else [withheld(str(self.sampler))]
        found = any(check.status in ("failed", "undecided") or _no_receipt(check) for check in own)
        given = None if exchange is None else _Given(exchange, tuple(own), _unproven(proofs))
        if found:
            return given or _Given(Exchange.read(sent.body if sent is not None else b"", b""), tuple(own))
        malformed = proofs is None and has_field and bool(self._verifiers)
        if not malformed and (proofs is None or proofs.choices is None):  # 4
            given_reason = proofs.error if proofs is not None else None
            why = _why(sent, exchange, has_field) if given_reason is None else given_reason.message
            if self.options.requires_proofs:
                raise MissingProofs(response, given_reason.code if given_reason is not None else None, why)
            self.unchecked(response, why)
            return None
        if given is None or not self.verifies:
            self._count("unchecked")
            return None
        if given.unproven and self._verifiers:
            if self.options.require_proofs:
                reason = next(c.error for c in (proofs and proofs.choices) or () if c.error is not None)
                raise MissingProofs(response, reason.code, f"choice {given.unproven[0]}: {reason.message}")
            self.unchecked(response, f"choices {', '.join(map(str, given.unproven))} have no proofs", raises=False)
        if not self._verifiers or malformed or self.chosen(next(self._numbers), given.exchange):  # 5
            return given
        self._count("unchecked")
        return None

    def keep(self, name: object, sent: Sent) -> None:
        """The request of a response that may be fetched later, by its id."""
        if sent.kind == "response" and isinstance(name, str):
            self._asked.keep(name, sent.body)

    def _react(self, exchange: Exchange, response: Any, judgement: Judgement) -> object:
        if judgement.open:
            self._spool(exchange)
            self._warn(f"an answer could not be checked and waits in the spool\n{judgement}")
            return None
        self._count(judgement.verdict)
        if judgement.accepted:
            return None
        reaction = self.options.reaction(judgement.verdict)
        if reaction == "raise":
            raise (RejectedResponse if judgement.verdict == "rejected" else UndecidedResponse)(response, judgement)
        if callable(reaction):
            return reaction(response, judgement)
        self._warn(str(judgement))
        return None

    def _submit(self, given: _Given, response: Any) -> None:
        with self._lock:
            if self._background is None:
                self._background = Background(self._check, self._spool_given, self.options.queue_size)
        self._background.submit(given, response)

    def _check(self, given: _Given, response: Any) -> None:
        try:
            judgement = self._judge(given)
        except Exception as error:
            logger.error("toploc: an answer could not be checked: %s", printable(repr(error)))
            self._spool(given.exchange)
            return
        try:
            pending = self._react(given.exchange, response, judgement)
            if inspect.iscoroutine(pending):
                asyncio.run(pending)
        except UnacceptedResponse as error:  # a stream that was left: nobody is there to catch it
            self._warn(str(error))
        except Exception:  # of the application's function; the thread has others to check
            logger.exception("toploc: the function for answers that were not accepted failed")

    def _spool_given(self, given: _Given) -> None:
        self._spool(given.exchange)

    def _spool(self, exchange: Exchange) -> None:
        path = self.options.spool_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            EvidenceFile(path).append_json(exchange.evidence)
            self._count("spooled")
        except (ToplocError, OSError) as error:
            self._count("lost")
            name = printable(str(exchange.parsed().get("id")))
            logger.error("toploc: answer %s was not checked and is lost: %s", name, printable(str(error)))

    def _warn(self, text: str) -> None:
        """Reports have lines; none of them has anything else that moves a cursor."""
        logger.warning("toploc: %s", "\n".join(printable(line) for line in text.split("\n")))

    def _count(self, outcome: str) -> None:
        with self._lock:
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)

    def _receipts(self, exchange: Exchange) -> list[Check]:
        """A check for each choice, if keys are trusted; a choice without a receipt has not passed."""
        if not self._keys:
            return []
        from toploc.receipts.receipt import verify_receipt

        try:
            body = exchange.request if exchange.exact else None
            results = verify_receipt(json.loads(exchange.request) or {}, exchange.parsed(), self._keys, body)
        except (MalformedEvidence, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            return [Check(name="receipt", status="undecided", reason="malformed", message=str(error))]
        return [
            Check(name="receipt", status=r.status, choice=r.choice, reason=r.reason, message=r.message) for r in results
        ]

    def _require_verifiers(self) -> None:
        if not self._verifiers and not self._keys:
            raise ToplocError("verifier: none was given to this client")


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer that is to be judged: its evidence, what this client has found itself, and choices whose proofs the
    server says it has not."""

    exchange: Exchange
    own: tuple[Check, ...] = ()
    unproven: tuple[int, ...] = ()

    @property
    def evidence(self) -> bytes:
        """As verifiers are asked. Where a choice came to nothing its token ids are not known; verifiers want one, and
        what they say of it is left out of account."""
        if not self.unproven:
            return self.exchange.evidence
        response = dict(self.exchange.parsed())
        field = response[FIELD_NAME]
        choices = [{**choice, "token_ids": choice["token_ids"] or [0]} for choice in field["choices"]]
        response[FIELD_NAME] = {**field, "choices": choices}
        return replace(self.exchange, response=json.dumps(response).encode()).evidence


def _against(sent: Sent | None, response: Mapping[str, Any]) -> list[Check]:
    """Whether the answer has the choices that were asked for."""
    asked = None if sent is None else sent.choices
    if asked is None:
        return []
    choices = response.get("choices")
    indices = [c.get("index") if isinstance(c, dict) else None for c in choices] if isinstance(choices, list) else []
    if sorted(i for i in indices if type(i) is int) == [*range(asked)] and len(indices) == asked:
        return []
    message = f"{asked} choices were asked for, and their numbers are {quote(', '.join(map(str, indices)) or 'none')}"
    return [Check(name="response", status="failed", reason="choices", message=message)]


def _another(sent: Sent | None, response: Mapping[str, Any]) -> list[Check]:
    """Whether the response that was fetched is the one that was to be."""
    if sent is None or sent.fetches in (None, response.get("id")):
        return []
    message = f"another response than the one that was fetched: {quote(str(response.get('id')))}"
    return [Check(name="response", status="failed", reason="replayed", message=message)]


def _unproven(proofs: ToplocProofs | None) -> tuple[int, ...]:
    choices = (proofs.choices or ()) if proofs is not None else ()
    lacking = tuple(choice.index for choice in choices if choice.error is not None)
    return lacking if len(lacking) < len(choices) else ()


def _no_receipt(check: Check) -> bool:
    return check.name == "receipt" and check.status != "passed"


def _says_nothing(response: Mapping[str, Any]) -> bool:
    """Of a response that the server works on still, or that came to nothing."""
    return response.get("status") in SAYS_NOTHING and not response.get("output")


def _why(sent: Sent | None, exchange: Exchange | None, has_field: bool) -> str:
    if has_field:
        return "what stands in their place is malformed"
    if sent is not None and sent.kind is None:
        return "it was fetched, and its server gave none; they are not kept for ever, nor at all by other servers"
    if exchange is None:
        return "the stream did not come to its end"
    return "the server sent none; is it `toploc serve`?"
