"""Asks vendors, and keeps each answer when it comes, so that a call that was stopped goes on."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from toploc.errors import ToplocError
from toploc.evidence.assembly import UNREADABLE, Assembly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from .config import Vendor
    from .questions import Question

ANSWERS: Final = "answers.jsonl"
"""Of a vendor's folder."""

MOST_BYTES: Final = 16 * 2**20
"""Of a reply. Stops one without end."""

AGAIN: Final = (429, 502, 503, 504)
"""Statuses of a vendor that is busy."""

ATTEMPTS: Final = 4

PAUSE: Final = 2.0
"""Seconds before the second attempt; then twice as long each time."""

MOST_SAID: Final = 500
"""Characters of what went wrong."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a question: a response, put together where it was a stream, or what went wrong.

    `done`: whether a stream came to its end; `events`: how many it had.
    """

    key: str
    request: dict[str, Any]
    response: dict[str, Any] | None = None
    problem: str = ""
    status: int = 0
    done: bool = True
    events: int = 0


class Answers:
    """Those of one vendor, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.replies: dict[str, Reply] = {}
        self._path = folder / ANSWERS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = self._path.read_bytes() if self._path.exists() else b""
            whole = kept[: kept.rfind(b"\n") + 1]
            if whole != kept:  # a line that a killed call left torn
                self._path.write_bytes(whole)
            for line in whole.splitlines():
                reply = Reply(**json.loads(line))
                self.replies[reply.key] = reply
        except OSError as error:
            raise ToplocError(f"{error.filename or folder}: {error.strerror}") from None
        except (ValueError, TypeError):
            raise ToplocError(f"{self._path}: not the answers of a vendor; choose another --out") from None

    def left(self, questions: Iterable[Question]) -> list[Question]:
        """Those that have no response yet."""
        return [one for one in questions if (r := self.replies.get(one.key)) is None or r.response is None]

    def add(self, reply: Reply) -> None:
        """Raises ToplocError where the disk is full."""
        try:
            with self._path.open("ab") as file:
                os.chmod(self._path, 0o600)  # noqa: PTH101
                file.write(json.dumps(asdict(reply), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        except OSError as error:
            raise ToplocError(f"{self._path}: {error.strerror}") from None
        self.replies[reply.key] = reply


async def ask(
    vendor: Vendor,
    questions: Sequence[Question],
    answers: Answers,
    *,
    at_once: int,
    timeout: float,
    progress: Callable[[], object],
) -> None:
    """Has the vendor answer, so many at once. What it fails with is a reply too."""
    headers = {} if vendor.api_key is None else {"authorization": f"Bearer {vendor.api_key.get_secret_value()}"}
    places = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(timeout, connect=10)) as http:

        async def one(question: Question) -> None:
            async with places:
                answers.add(await _reply(http, vendor, question, timeout))
                progress()

        async with asyncio.TaskGroup() as group:
            for question in questions:
                group.create_task(one(question))


def body_for(vendor: Vendor, question: Question) -> dict[str, Any]:
    """What is sent."""
    asked = {"logprobs": True} if vendor.logprobs and question.kind != "tools" else {}
    return {"model": vendor.model, **question.body, **asked, **vendor.extra}


async def _reply(http: httpx.AsyncClient, vendor: Vendor, question: Question, timeout: float) -> Reply:
    body = body_for(vendor, question)
    reply = Reply(question.key, body, problem="it was not asked")
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            async with asyncio.timeout(timeout):
                reply = await _attempt(http, f"{vendor.url}/chat/completions", question.key, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            reply = Reply(question.key, body, problem=f"{type(error).__name__}: {error}"[:MOST_SAID])
        if reply.response is not None or reply.status not in (0, *AGAIN):
            break
    return reply


async def _attempt(http: httpx.AsyncClient, url: str, key: str, body: dict[str, Any]) -> Reply:
    async with http.stream("POST", url, json=body) as response:
        parts = bytearray()
        async for part in response.aiter_bytes():
            parts += part
            if len(parts) > MOST_BYTES:
                return Reply(key, body, problem=f"the reply has more than {MOST_BYTES:,} bytes", status=-1)
        data = bytes(parts)
        if not response.is_success:
            said = data[:MOST_SAID].decode(errors="replace")
            return Reply(
                key, body, problem=f"HTTP {response.status_code}: {said}"[:MOST_SAID], status=response.status_code
            )
        if body.get("stream"):
            return _put_together(key, body, data, response.status_code)
        try:
            made = json.loads(data)
        except (ValueError, RecursionError):
            made = None
        if not isinstance(made, dict):
            return Reply(key, body, problem="the reply is no JSON object", status=response.status_code)
        return Reply(key, body, made, status=response.status_code)


def _put_together(key: str, body: dict[str, Any], data: bytes, status: int) -> Reply:
    assembly, events, done = Assembly(), 0, False
    for line in data.splitlines():
        text = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if text == b"[DONE]":
            done = True
        elif text:
            events += 1
            try:
                assembly.add(json.loads(text))
            except UNREADABLE as error:
                return Reply(
                    key, body, problem=f"an event is none: {type(error).__name__}", status=status, events=events
                )
    try:
        made = assembly.response()
    except UNREADABLE:
        made = None
    if made is None:
        return Reply(key, body, problem="the stream's events make no response", status=status, events=events)
    return Reply(key, body, made, status=status, done=done, events=events)
