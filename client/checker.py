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
from typing import TYPE_CHECKING, Any

from toploc.errors import MalformedEvidence, ToplocError
from toploc.evidence.file import EvidenceFile
from toploc.foreign import printable
from toploc.protocol import FIELD_NAME
from toploc.report import Check

from . import share
from .asked import Asked
from .background import Background
from .errors import MissingProofs, RejectedResponse, UnacceptedResponse, UndecidedResponse
from .exchange import Exchange, Memory
from .judgement import Judgement
from .log import logger
from .replays import Replays
from .seeds import NONE, held, withheld
from .verifiers import NamedVerifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answer import Answer
    from .kept import Kept
    from .options import Options
    from .routes import Sent


@dataclass
class Counts:
    """How answers of a client fared. `undecided` could not be judged. `unchecked` were not chosen, or have no proofs,
    or were left before these came; an answer that is proven in part is counted there too. `spooled` wait in a file;
    `lost` could neither be checked nor be written there. `fetched` had their proofs come by another request, and are
    counted by their verdict too."""

    accepted: int = 0
    rejected: int = 0
    undecided: int = 0
    unchecked: int = 0
    spooled: int = 0
    lost: int = 0
    fetched: int = 0


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
        options = self.options
        return not (self._evidence or self.verifies or options.require_proofs or options.fetch_proofs)

    def with_changes(self, changes: dict[str, Any]) -> Checker:
        changed = Checker(self.options.with_changes(changes), self)
        if "audit_seed" not in changes:
            changed.seed = self.seed
        return changed

    def chosen(self, number: int, exchange: Exchange) -> bool:
        """Whether the answer of this number is checked. A share `audit_rate` is, drawn as `share.py` says: by what the
        server does not know (the seed) and cannot choose alone (number, request and response)."""
        return share.chosen(self.options.audit_rate, self.seed, f"{number}:{sha256(exchange.evidence).hexdigest()}")

    def leave(self, answer: Answer) -> None:
        """Checks in the background an answer that nobody waits for: of a stream that was left after its proofs."""
        try:
            given = self.begin(answer)
            if given is not None:
                self.submit(given, answer.response)
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

    def ask(self, given: Given) -> Judgement:
        """What the verifiers say, one after the other."""
        opinions = [named.ask(given.evidence) for named in self._verifiers]
        return Judgement.by(self.options.rule, opinions, given.own, unproven=given.unproven)

    async def ask_async(self, given: Given) -> Judgement:
        """What the verifiers say, all asked at once."""
        opinions = await asyncio.gather(*(named.ask_async(given.evidence) for named in self._verifiers))
        return Judgement.by(self.options.rule, opinions, given.own, unproven=given.unproven)

    def require_verifiers(self) -> None:
        """Raises ToplocError where there is nobody to judge an answer."""
        if not self.verifies:
            raise ToplocError("verifier: none was given to this client")

    def given(self, exchange: Exchange) -> Given:
        """An answer that is judged because somebody asks."""
        return Given(exchange, tuple(self._receipts(exchange)))

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

    def fetchable(self, answer: Answer) -> str | None:
        """The id by which the answer's server is asked for proofs that did not come with it, None if it is not."""
        return answer.fetchable if self.options.fetches_proofs and not answer.says_nothing else None

    def receive(self, answer: Answer, kept: Kept) -> Answer:
        """The answer with what its server said when it was asked."""
        if not kept.problem:
            self._count("fetched")
        return answer.with_kept(kept)

    def begin(self, answer: Answer) -> Given | None:
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
        if answer.sent is not None and answer.exchange is not None:  # 1
            self.keep(answer.parsed.get("id"), answer.sent)
            if answer.says_nothing:
                return None
            answer = answer.asked_by(self._asked)
        self._store(answer)  # 2
        own = tuple(self._found(answer))  # 3
        given = None if answer.exchange is None else Given(answer.exchange, own, answer.unproven)
        if any(check.status in ("failed", "undecided") or _no_receipt(check) for check in own):
            return given or Given(Exchange.read(answer.sent.body if answer.sent is not None else b"", b""), own)
        malformed = answer.proofs is None and answer.has_field and bool(self._verifiers)
        if not malformed and not self._proven(answer):  # 4
            return None
        if given is None or not self.verifies:
            self._count("unchecked")
            return None
        if given.unproven and self._verifiers:
            self._partly(answer)
        if not self._verifiers or malformed or self.chosen(next(self._numbers), given.exchange):  # 5
            return given
        self._count("unchecked")
        return None

    def _store(self, answer: Answer) -> None:
        if answer.exchange is None:
            return
        self.memory.remember(answer.response, answer.exchange)
        if self._evidence is not None:
            try:
                self._evidence.append_json(answer.exchange.evidence)
            except ToplocError as error:  # a full disk is no reason to lose an answer
                logger.error("toploc: %s", printable(str(error)))

    def _found(self, answer: Answer) -> Iterator[Check]:
        yield from answer.seen
        if answer.exchange is not None and (answer.proofs is not None or answer.has_field or self._keys):
            yield from answer.contradictions(self._replays)
            yield from self._receipts(answer.exchange)
        seeded = answer.sent is None or answer.proofs is None or held(answer.sent.parsed(), answer.proofs)
        if not seeded and self.sampler not in (None, "", NONE):
            yield withheld(str(self.sampler))

    def _proven(self, answer: Answer) -> bool:
        """Whether there are any proofs; counts an answer without. Raises MissingProofs."""
        if answer.proofs is not None and answer.proofs.choices is not None:
            return True
        error = answer.proofs.error if answer.proofs is not None else None
        why = answer.why_unproven() if error is None else error.message
        if self.options.requires_proofs:
            raise MissingProofs(answer.response, error.code if error is not None else None, why)
        self.unchecked(answer.response, why)
        return False

    def _partly(self, answer: Answer) -> None:
        """Counts an answer of which some choices have no proofs. Raises MissingProofs where all have to have them."""
        if self.options.require_proofs:
            choices = (answer.proofs.choices or ()) if answer.proofs is not None else ()
            reason = next(choice.error for choice in choices if choice.error is not None)
            raise MissingProofs(answer.response, reason.code, f"choice {answer.unproven[0]}: {reason.message}")
        lacking = ", ".join(map(str, answer.unproven))
        self.unchecked(answer.response, f"choices {lacking} have no proofs", raises=False)

    def keep(self, name: object, sent: Sent) -> None:
        """The request of a response that may be fetched later, by its id."""
        if sent.kind == "response" and isinstance(name, str):
            self._asked.keep(name, sent.body)

    def react(self, exchange: Exchange, response: Any, judgement: Judgement) -> object:
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

    def submit(self, given: Given, response: Any) -> None:
        with self._lock:
            if self._background is None:
                self._background = Background(self._check, self._spool_given, self.options.queue_size)
        self._background.submit(given, response)

    def _check(self, given: Given, response: Any) -> None:
        try:
            judgement = self.ask(given)
        except Exception as error:
            logger.error("toploc: an answer could not be checked: %s", printable(repr(error)))
            self._spool(given.exchange)
            return
        try:
            pending = self.react(given.exchange, response, judgement)
            if inspect.iscoroutine(pending):
                asyncio.run(pending)
        except UnacceptedResponse as error:  # a stream that was left: nobody is there to catch it
            self._warn(str(error))
        except Exception:  # of the application's function; the thread has others to check
            logger.exception("toploc: the function for answers that were not accepted failed")

    def _spool_given(self, given: Given) -> None:
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
            Check(
                name="receipt",
                status=r.status,
                choice=r.choice,
                reason=r.reason,
                message=r.message,
                figures={"uncovered": [*r.uncovered]} if r.uncovered else {},
            )
            for r in results
        ]


@dataclass(frozen=True, slots=True)
class Given:
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


def _no_receipt(check: Check) -> bool:
    return check.name == "receipt" and check.status != "passed"
