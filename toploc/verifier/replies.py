"""What a verifying server replies, and what is made of it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httpx
from pydantic import ValidationError

from ..errors import MalformedEvidence, ToplocError, VerifierUnavailable
from ..report import Report, malformed, refused
from ..scheme import MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT: Final = 660.0
"""Seconds for a report; the server itself gives up after 600."""

RETRIES: Final = 4
"""Attempts after the first."""

PATH: Final = "/v1/toploc/verify"
"""Where evidence goes."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect. Stops an address that swallows packets from taking all of `timeout`."""

MAX_WAIT: Final = 30.0
"""Seconds between two attempts. Stops a server that asks for a day by Retry-After."""

MAX_REPORT: Final = 32 * 2**20
"""Bytes of one report. Stops a verifier that fills the memory; 100,000 tokens have a report of 1 MB."""

REFUSED: Final = (413, 422, 500)
"""Statuses that an answer can bring about: its maker must not get it delivered as one that nobody could check."""

REFUSALS: Final = ("too_large", "internal_error", "verification_failed")
"""The codes of such replies in a batch."""

AGAIN: Final = (429, 502, 503, 504)
"""Statuses of a server that is busy, restarting or behind a proxy that does not reach it."""

EvidenceLike = bytes | str | Mapping[str, Any]
"""Evidence that nobody has read yet: JSON, or the mapping that it says."""


def to_json(evidence: EvidenceLike) -> bytes:
    """Raises MalformedEvidence for what JSON cannot say."""
    if isinstance(evidence, bytes):
        return evidence
    try:
        text = evidence if isinstance(evidence, str) else json.dumps(evidence, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedEvidence("", f"cannot be written as JSON: {error}") from None


class Again(Exception):
    """An attempt failed that another may not; `seconds` is what the server asked for."""

    def __init__(self, problem: str, seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.seconds = seconds


class Remote:
    """The server that is asked: where it is, how long it may take, and what its replies mean."""

    def __init__(self, url: str, api_key: str | None, timeout: float, retries: int) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        if not self.url.startswith(("http://", "https://")):
            raise ToplocError(f"verifier {url!r}: expected a URL that begins with http:// or https://")
        self.path, self.home = self.url + PATH, self.url + "/v1/toploc"
        self.timeout, self.retries = timeout, retries
        self.headers = {"content-type": "application/json"}
        if api_key:
            self.headers["authorization"] = f"Bearer {api_key}"

    def deadline(self) -> float:
        return time.monotonic() + self.timeout

    def patience(self, deadline: float = float("inf")) -> httpx.Timeout:
        """Of one attempt: until the deadline, and not long for somebody who is not there."""
        left = max(0.001, min(self.timeout, deadline - time.monotonic()))
        return httpx.Timeout(left, connect=min(left, CONNECT_TIMEOUT))

    def check(self, size: int, deadline: float) -> None:
        """Stops replies that are too long, and those that come a byte at a time: httpx times each read alone."""
        if size > MAX_REPORT:
            self.unavailable(f"the reply is longer than {MAX_REPORT:,} bytes")
        if time.monotonic() > deadline:
            raise Again(f"no reply within {self.timeout:g} s")

    def batch(self, items: Sequence[EvidenceLike]) -> bytes:
        if not 0 < len(items) <= MAX_ITEMS:
            raise ToplocError(f"items: expected 1 to {MAX_ITEMS:,}, got {len(items):,}")
        return b'{"items":[' + b",".join(to_json(item) for item in items) + b"]}"

    def report(self, response: httpx.Response, content: bytes) -> Report:
        if response.is_success:
            try:
                return Report.model_validate_json(content)
            except ValidationError:
                self.unavailable("the reply is no report")
        problem = f"HTTP {response.status_code}: {_message(content)}"
        if response.status_code == 400:
            return malformed("malformed", _message(content), _field(content))
        if response.status_code in REFUSED:
            return refused(problem)
        if response.status_code in AGAIN:
            seconds = response.headers.get("retry-after", "")
            raise Again(problem, float(seconds) if seconds.isdecimal() else 0.0)
        raise VerifierUnavailable(self.url, problem)

    def refuse_batch(self, response: httpx.Response, content: bytes) -> NoReturn:
        """Raises, since a refusal of the whole says nothing of any one answer: its own is a line of the reply."""
        if response.status_code in AGAIN:
            self.report(response, content)
        raise VerifierUnavailable(self.url, f"HTTP {response.status_code}: {_message(content)}")

    def description(self, response: httpx.Response) -> dict[str, Any]:
        try:
            description = response.json() if response.is_success else None
        except ValueError:
            description = None
        if not isinstance(description, dict) or "scheme" not in description:
            self.unavailable(f"HTTP {response.status_code}, which is no `toploc serve`")
        return description

    def wait(self, attempt: int, again: Again, deadline: float) -> float:
        """Seconds until the next attempt; raises VerifierUnavailable after the last, or where time would be up."""
        # With chance, so that clients who failed together do not come back together.
        backoff: float = 0.5 * 2**attempt * random.uniform(0.75, 1.25)  # noqa: S311
        pause = min(MAX_WAIT, max(again.seconds, backoff))
        if attempt >= self.retries or time.monotonic() + pause >= deadline:
            self.unavailable(str(again))
        return pause

    def unavailable(self, problem: str) -> NoReturn:
        raise VerifierUnavailable(self.url, problem)


class Lines:
    """Lines of NDJSON out of parts of any size. After the first, nothing is asked again: the caller has it already."""

    def __init__(self, remote: Remote, count: int) -> None:
        self._remote, self._count = remote, count
        self._rest = bytearray()
        self._seen: set[int] = set()

    def feed(self, part: bytes) -> Iterator[tuple[int, Report | ToplocError]]:
        self._rest += part
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > MAX_REPORT:
            self._remote.unavailable(f"a report is longer than {MAX_REPORT:,} bytes")
        for line in lines:
            if line.strip():
                yield self._line(bytes(line))

    def _line(self, line: bytes) -> tuple[int, Report | ToplocError]:
        try:
            reply = json.loads(line)
            index = reply["index"]
            error = reply.get("error")
            if not isinstance(index, int) or not 0 <= index < self._count or index in self._seen:
                self._remote.unavailable(f"a reply for item {str(index)[:20]}, which was not asked for")
            self._seen.add(index)
            result: Report | ToplocError
            if error is None:
                result = Report.model_validate(reply["report"])
            elif error.get("code") == "malformed_evidence":
                result = malformed("malformed", str(error["message"]), str(error.get("param") or ""))
            elif error.get("code") in REFUSALS:
                result = refused(str(error["message"])[:500])
            else:
                result = ToplocError(f"{self._remote.url}: {str(error['message'])[:200]}")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise VerifierUnavailable(self._remote.url, "the reply has a line that is no report") from None
        return index, result

    def broke(self, problem: str) -> None:
        if not self._seen:
            raise Again(problem)
        self._remote.unavailable(problem)

    def end(self) -> None:
        if len(self._seen) < self._count:
            self.broke(f"{self._count - len(self._seen)} of {self._count} reports did not come")


def reason_of(error: Exception) -> str:
    return str(error) or type(error).__name__


def _field(content: bytes) -> str:
    """Of an error in OpenAI's format: the path of what is wrong, where it has one."""
    try:
        return str(json.loads(content)["error"]["param"] or "")
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _message(content: bytes) -> str:
    """Of an error in OpenAI's format, or how the reply begins."""
    try:
        return str(json.loads(content)["error"]["message"])[:500]
    except (ValueError, LookupError, TypeError, RecursionError):
        return content[:200].decode(errors="replace")
