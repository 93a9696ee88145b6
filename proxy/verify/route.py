"""`POST /v1/toploc/verify`: the report on an answer, or a stream of reports on up to a thousand."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from toploc.errors import MalformedEvidence
from toploc.evidence.strict_json import load_json
from toploc.leaves import FREE
from toploc.page.shown import Room, shown_of
from toploc.scheme import MAX_ITEMS

from ..asgi.errors import error_body
from ..log import SHOWN, logger
from ..metrics import VERIFICATION_LATENCY, VERIFICATIONS
from ..tracing import REQUEST_ID, VERIFICATION
from .engine import Busy
from .limits import TooLarge, TooMany
from .schema import OPENAPI

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from toploc.evidence.evidence import Evidence
    from toploc.report import Report

    from ..answers.context import Served
    from ..settings import Settings
    from ..tracing import Spans
    from .verifier import EngineVerifier

    ReportOn = Callable[[object], Awaitable[Report]]

BODY_SECONDS: Final = 60.0
"""For a body to arrive. Stops clients that take all places and send nothing."""

NO_TOKENIZER: Final = (
    "this server was started without a tokenizer (--tokens-only, --skip-tokenizer-init), so it cannot verify; ask "
    "another server of the same weights"
)

router = APIRouter()


class Server(Protocol):
    """What verifications need of `app.state.toploc` (`server.Server`)."""

    @property
    def served(self) -> Served:
        """What all answers have in common."""

    @property
    def verifier(self) -> EngineVerifier | None:
        """Judges evidence; None on a server without a tokenizer."""

    @property
    def spans(self) -> Spans:
        """Where what is traced goes."""

    @property
    def settings(self) -> Settings:
        """What the operator chose."""


@router.post("/v1/toploc/verify", openapi_extra=OPENAPI, response_class=Response)
async def verify(request: Request) -> Response:
    """Is this answer what the model says to this request? One prefill for each choice."""
    server: Server = request.app.state.toploc
    verifier = server.verifier
    if verifier is None:
        return _error(501, NO_TOKENIZER, None, "no_tokenizer")
    with ExitStack() as stack:
        try:
            value = await _value(request, verifier, stack)
            items = _items(value)
            report_on = partial(_report, verifier, server.spans, request.headers)
            if items is not None:
                # At most half of the prefills are this request's.
                reports = _stream(report_on, items, max(1, verifier.places.size // 2))
                return _Reports(reports, stack.pop_all())
            report = await _unless_gone(request, report_on(value))
            return Response(report.model_dump_json() if report else b"", media_type="application/json")
        except Exception as error:
            return refusal(error)


@router.post("/v1/toploc/page/verify", include_in_schema=False)
async def verify_shown(request: Request) -> Response:
    """As `verify` of one answer, with the answer as the page shows it."""
    server: Server = request.app.state.toploc
    verifier = server.verifier
    if verifier is None or not verifier.recent.shown:
        return _error(404, "this server has no page", None, "no_page")
    with ExitStack() as stack:
        try:
            value = await _value(request, verifier, stack)
            report = await _unless_gone(request, _report(verifier, server.spans, request.headers, value))
            if report is None:
                return Response()
            answers = (await verifier.parse(value)).answers
            shown = await verifier.in_thread(partial(shown_of, report, value, Room(), answers))
            answer = shown.model_dump(mode="json", exclude_none=True)
            return JSONResponse({"answer": answer, "report": report.model_dump(mode="json")})
        except Exception as error:
            return refusal(error)


async def _value(request: Request, verifier: EngineVerifier, stack: ExitStack) -> object:
    """A body's, in a place that `stack` gives back. Raises MalformedEvidence, TooLarge and TooMany."""
    hold = stack.enter_context(verifier.places.request())
    return await verifier.in_thread(partial(load_json, await read_body(request, verifier.places.body_bytes, hold)))


class _Reports(StreamingResponse):
    """Gives its place back at its end, also where the client is gone before the first line."""

    def __init__(self, lines: AsyncIterator[bytes], place: ExitStack) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


def description(server: Server) -> dict[str, Any]:
    """What `GET /v1/toploc` says of verification; of a server that does none, its role and model alone."""
    verifier, settings = server.verifier, server.settings
    if verifier is None:
        return {"role": settings.role.value, "models": [server.served.model]}
    thresholds = verifier.policy.thresholds
    return {
        "role": settings.role.value,
        "models": verifier.served_names(),
        "thresholds": {
            "name": thresholds.name,
            "dtype": thresholds.dtype,
            "provenance": thresholds.provenance,
            "impostor_rate": thresholds.impostor_rate,
        },
        "response": {"routes": [*verifier.engine.rehearsal.routes], "free": {**FREE}},
        "limits": {
            "verify_concurrency": settings.verify_concurrency,
            "verify_tokens": settings.verify_tokens,
            "verify_tokens_beside": settings.verify_tokens_beside,
            "verify_body_bytes": settings.verify_body_bytes,
            "verify_items": MAX_ITEMS,
            "context_length": verifier.policy.context_length,
        },
    }


async def read_body(request: Request, limit: int, hold: Callable[[int], None]) -> bytes:
    """Raises TooLarge before more than the limit is held, and what `hold` raises before each part."""
    message = f"the body has more than {limit:,} bytes"
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise TooLarge("", message)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise TooLarge("", message)
                hold(len(part))
                parts.append(part)
    except TimeoutError:
        raise MalformedEvidence("", f"the body did not come within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise MalformedEvidence("", "the body ended early") from None
    return b"".join(parts)


def _items(value: object) -> list[object] | None:
    """The items of a body that has several. Raises MalformedEvidence."""
    if not isinstance(value, dict) or "items" not in value:
        return None
    items = value["items"]
    if len(value) > 1:
        raise MalformedEvidence(_unknown(value), "unknown beside `items`")
    if not isinstance(items, list) or not items:
        raise MalformedEvidence("items", "expected a list of at least one item")
    if len(items) > MAX_ITEMS:
        raise TooLarge("items", f"items: more than {MAX_ITEMS:,}")
    return items


def _unknown(value: dict[str, Any]) -> str:
    return str(min(value.keys() - {"items"}))[:100]


async def _report(verifier: EngineVerifier, spans: Spans, headers: Mapping[str, str], item: object) -> Report:
    """Raises MalformedEvidence, TooLarge, and whatever the engine raises."""
    began, verdict = time.monotonic(), "failed"
    with spans.span(VERIFICATION, headers) as span:
        try:
            evidence = await verifier.parse(item)
            span |= {REQUEST_ID: str(evidence.source[1].get("id", ""))[:SHOWN], "toploc.choices": len(evidence.answers)}
            report = await verifier.verify(evidence)
            verdict, seconds = report.verdict, time.monotonic() - began
            VERIFICATION_LATENCY.observe(seconds)
            await _remember(verifier, item, evidence, report, seconds, headers.get("authorization", ""))
            against = [check for check in report.checks if check.status in ("failed", "undecided")]
            span["toploc.reasons"] = " ".join(dict.fromkeys(check.reason for check in against if check.reason))
            return report
        except (MalformedEvidence, TooLarge):
            verdict = "malformed"
            verifier.recent.malformed += 1
            raise
        finally:
            span["toploc.verdict"] = verdict
            VERIFICATIONS.labels(verdict).inc()


async def _remember(
    verifier: EngineVerifier, item: object, evidence: Evidence, report: Report, seconds: float, key: str
) -> None:
    """For the page. What fails here costs nobody a report."""
    if verifier.recent.shown:
        read = partial(verifier.recent.read, item, evidence, report, verifier.served_names(), seconds, key)
        try:
            verifier.recent.put(await verifier.in_thread(read))
        except Exception:
            logger.exception("toploc: a verification cannot be shown")


async def _unless_gone(request: Request, work: Any) -> Report | None:
    """None, with the work cancelled, once the client has gone. The body has been read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(report_on: ReportOn, items: Sequence[object], at_once: int) -> AsyncIterator[bytes]:
    """A line for each item, as they are done."""
    waiting: Iterator[tuple[int, object]] = iter(enumerate(items))
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def work() -> None:
        for index, item in waiting:
            lines.put_nowait(await _line(report_on, index, item))

    tasks = [asyncio.create_task(work()) for _ in range(min(len(items), at_once))]
    try:
        for _ in items:
            yield await lines.get()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _line(report_on: ReportOn, index: int, item: object) -> bytes:
    try:
        report = await report_on(item)
        return b'{"index":%d,"report":%s}\n' % (index, report.model_dump_json().encode())
    except Exception as error:
        # As in a response of its own: `{"error": {…}}`, with the index before it.
        body = refusal(error).body
        return b'{"index":%d,%s\n' % (index, bytes(body)[1:])


def refusal(error: Exception) -> Response:
    """What is answered in place of a report."""
    match error:
        case MalformedEvidence():
            return _error(400, str(error), error.field or None, "malformed_evidence")
        case TooLarge():
            return _error(413, str(error), error.field or None, "too_large")
        case TooMany():
            return _error(429, str(error), None, "too_many_verifications", {"retry-after": "1"})
        case Busy():
            return _error(503, str(error), None, "engine_busy", {"retry-after": "1"})
        case TimeoutError():
            return _error(500, "the engine did not come to it in time", None, "verification_timeout")
        case _:
            logger.error("toploc: a verification failed", exc_info=error)
            return _error(500, "the verification failed; the server's log has the details", None, "internal_error")


def _error(status: int, message: str, param: str | None, code: str, headers: dict[str, str] | None = None) -> Response:
    return Response(error_body(status, message, param, code), status, headers, media_type="application/json")
