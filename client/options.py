"""What a client is told to do with answers, parsed where it is given."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args, runtime_checkable

from toploc.errors import ToplocError

from .judgement import Rule

if TYPE_CHECKING:
    from toploc.receipts.keys import PublicKey
    from toploc.report import Report, ReportVerdict

When = Literal["inline", "background"]
"""Whether the caller waits for the check."""


@runtime_checkable
class Verifies(Protocol):
    """Any object that reports on evidence, `{"request": …, "response": …}` in JSON; `toploc_client.Verifier` is one."""

    def verify(self, evidence: bytes, /) -> Report | Awaitable[Report]: ...


OnReject = Literal["raise", "warn"] | Callable[[Any, Any], object]
"""What is done with an answer that is not accepted; a function takes the SDK's object and the judgement."""
Seeds = bool | str | Callable[[], str]
"""Whether requests that sample get a seed; or the public value, or what gives it, that seeds are derived from."""
OneVerifier = str | Verifies | Callable[[bytes], Any]
"""A server's URL, an object that reports, or a function of evidence in JSON."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the client's classes take beside the SDK's options; `docs/client.md` explains each.

    Raises ToplocError for a value that is none, with its name.
    """

    verifier: OneVerifier | Iterable[OneVerifier] = ()
    verifier_api_key: str | None = None
    rule: Rule = "all"
    audit_rate: float = 1.0
    audit_seed: str | None = None
    when: When = "inline"
    on_reject: OnReject | None = None
    on_undecided: OnReject | None = None
    require_proofs: bool | None = None
    fetch_proofs: bool | None = None
    trusted_keys: str | os.PathLike[str] | Iterable[PublicKey] = ()
    evidence: str | os.PathLike[str] | None = None
    spool: str | os.PathLike[str] | None = None
    queue_size: int = 1000
    draw_seeds: Seeds = True

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ToplocError(f"rule: expected all, any or majority, got {self.rule!r}")
        if self.when not in get_args(When):
            raise ToplocError(f"when: expected inline or background, got {self.when!r}")
        if not isinstance(self.audit_rate, int | float) or not 0 <= self.audit_rate <= 1:
            raise ToplocError(f"audit_rate: expected a number from 0 to 1, got {self.audit_rate!r}")
        for name in ("on_reject", "on_undecided"):
            reaction = getattr(self, name)
            if not (reaction in (None, "raise", "warn") or callable(reaction)):
                raise ToplocError(f"{name}: expected raise, warn or a function, got {reaction!r}")
            if self.when == "background" and reaction == "raise":
                raise ToplocError(f"{name}: nobody is there to catch it in the background; give warn or a function")
        for name in ("require_proofs", "fetch_proofs"):
            if (given := getattr(self, name)) not in (None, True, False):
                raise ToplocError(f"{name}: expected True, False or None, got {given!r}")
        if not (isinstance(self.draw_seeds, bool | str) or callable(self.draw_seeds)):
            raise ToplocError(f"draw_seeds: expected True, False, a text or a function, got {self.draw_seeds!r}")
        if not isinstance(self.queue_size, int) or self.queue_size < 1:
            raise ToplocError(f"queue_size: expected a positive integer, got {self.queue_size!r}")

    @property
    def verifiers(self) -> tuple[OneVerifier, ...]:
        given = self.verifier
        if isinstance(given, str | Verifies) or callable(given):
            return (given,)
        return tuple(given)

    @property
    def requires_proofs(self) -> bool:
        """Whether an answer without proofs is refused: unless told otherwise, where somebody is there to check them."""
        return bool(self.verifiers) if self.require_proofs is None else self.require_proofs

    @property
    def fetches_proofs(self) -> bool:
        """Whether a server is asked for the proofs that did not come with an answer: unless told otherwise, where
        without them it would be refused."""
        return self.requires_proofs or self.trusted_keys != () if self.fetch_proofs is None else self.fetch_proofs

    def reaction(self, verdict: ReportVerdict) -> OnReject:
        """To an answer that was not accepted."""
        given = self.on_reject if verdict == "rejected" else self.on_undecided
        if given is not None:
            return given
        raises = verdict == "rejected" or self.requires_proofs
        return "raise" if raises and self.when == "inline" else "warn"

    @property
    def spool_path(self) -> Path:
        """Where answers wait that could not be checked: in the state directory of the XDG specification."""
        if self.spool is not None:
            return Path(self.spool)
        state = os.environ.get("XDG_STATE_HOME")
        return (Path(state) if state else Path.home() / ".local" / "state") / "toploc" / "spool.jsonl"

    def keys(self) -> tuple[PublicKey, ...]:
        """Raises InvalidKey."""
        if isinstance(self.trusted_keys, str | os.PathLike):
            from toploc.receipts.keys import load_trusted_keys

            return load_trusted_keys(os.fspath(self.trusted_keys))
        return tuple(self.trusted_keys)

    def with_changes(self, changes: Mapping[str, Any]) -> Options:
        return Options(**{name: changes.get(name, getattr(self, name)) for name in NAMES})


NAMES: Final = tuple(field.name for field in fields(Options))
"""What tells our options from the SDK's own."""
