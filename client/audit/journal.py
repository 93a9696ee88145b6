"""Reports of an audit in a folder, each written when it comes, so that the audit goes on where it stopped."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toploc.errors import ToplocError
from toploc.evidence.unproven import without_proofs

from .. import share
from .entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DRAW: Final = "audit.json"
REPORTS: Final = "reports.jsonl"
"""Files of the folder."""


class Draw(BaseModel):
    """What decides which answers are chosen: a share of them, drawn with a seed that their server does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    evidence: str
    sample: float = Field(gt=0, le=1)
    seed: str
    without_proofs: bool = False
    sampling: list[dict[str, float]] | None = None
    """Options that answers without proofs may have been drawn under."""

    def chosen(self, digest: str) -> bool:
        """Whether the answer whose JSON has this SHA-256 is in the share."""
        return share.chosen(self.sample, self.seed, digest)

    def asked(self, data: bytes) -> bytes:
        """An answer's JSON as verifiers are given it."""
        return without_proofs(data, self.sampling) if self.without_proofs else data


@dataclass(frozen=True, slots=True)
class Proofless:
    """That answers are held to their text alone; `sampling`: the options that they may have been drawn under, None for
    the verifier's choice."""

    sampling: list[dict[str, float]] | None = None


class Journal:
    """The folder of an audit, made where there is none, and locked: a `with` statement ends it.

    Raises ToplocError for a folder that another audit uses, or that is of another file, share or seed.
    """

    def __init__(
        self, folder: Path, evidence: Path, sample: float, seed: str | None, proofless: Proofless | None = None
    ) -> None:
        self.folder = folder
        self.path = folder / REPORTS
        self.done: dict[int, str] = {}
        """The SHA-256 of each line that has its report."""
        self._places: dict[int, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except OSError as error:
            raise ToplocError(f"{error.filename or folder}: {error.strerror}") from None
        try:
            self._lock()
            self.draw = self._drawn(evidence, sample, seed, proofless)
            self._read()
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise ToplocError(f"{error.filename or folder}: {error.strerror}") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, entry: Entry) -> None:
        """Raises ToplocError where the disk is full."""
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(entry.model_dump_json().encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise ToplocError(f"{self.path}: {error.strerror}") from None
        self.done[entry.line] = entry.sha256
        self._places[entry.line] = place

    def entries(self) -> Iterator[Entry]:
        """In the order of the evidence file, whatever order they came in."""
        for line in sorted(self._places):
            self._file.seek(self._places[line])
            try:
                yield Entry.model_validate_json(self._file.readline())
            except ValidationError:
                raise ToplocError(f"{self.path}: the entry of line {line} is none; was the file edited?") from None

    def _lock(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ToplocError(f"{self.folder}: another audit is writing there") from None

    def _drawn(self, evidence: Path, sample: float, seed: str | None, proofless: Proofless | None) -> Draw:
        """That of the folder, which is written where it is new."""
        path = self.folder / DRAW
        try:
            draw = Draw.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            draw = Draw(
                evidence=str(evidence),
                sample=sample,
                seed=seed or secrets.token_hex(16),
                without_proofs=proofless is not None,
                sampling=None if proofless is None else proofless.sampling,
            )
            new = path.with_suffix(".new")
            new.write_text(json.dumps(draw.model_dump(), ensure_ascii=False, indent=1) + "\n", "utf-8")
            new.replace(path)
        except ValidationError:
            raise ToplocError(f"{path}: not the settings of an audit; choose another --out") from None
        if draw.sample != sample or seed not in (None, draw.seed):
            raise ToplocError(
                f"{self.folder}: holds an audit with --sample {draw.sample:g} and another --seed or share than this; "
                "choose another --out"
            )
        if (draw.without_proofs, draw.sampling) != (proofless is not None, proofless and proofless.sampling):
            message = "holds an audit with another --without-proofs or --sampling than this; choose another --out"
            raise ToplocError(f"{self.folder}: {message}")
        return draw

    def _read(self) -> None:
        """What is there already. A line that a killed audit left torn is cut off."""
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = orjson.loads(line)
                number, digest = int(entry["line"]), str(entry["sha256"])
            except (ValueError, LookupError, TypeError):
                raise ToplocError(f"{self.path}: not the reports of an audit; choose another --out") from None
            self.done[number] = digest
            self._places[number] = whole
            whole += len(line)
        self._file.truncate(whole)
