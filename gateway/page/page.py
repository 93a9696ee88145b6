"""The page, and what it reads: the state as it changes, lists of answers, one answer, verdicts on what is dropped.

The document itself has nothing of anybody's, and comes without a key. All else needs one.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from toploc.errors import MalformedEvidence
from toploc.evidence.strict_json import load_json
from toploc.page.document import live_document
from toploc.page.live import HEADERS, MEDIA_TYPE, Live, TooManyBrowsers
from toploc.page.shown import Room, Shown, shown_of
from toploc.page.table import Tables, UnreadableTable
from toploc.report import Report, coverage_of

from ..errors import Refusal
from ..incoming import whole
from .state import State

if TYPE_CHECKING:
    from starlette.requests import Request

    from toploc.report import ReportVerdict

    from ..gateway import Gateway
    from ..stores.answers import Answer

LISTED: Final = 25
"""Answers of a list."""

ROOM: Final = Room()

NO_STORE: Final = {"cache-control": "no-store"}


class Page:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._document = live_document("toploc gateway", __package__ or "", "gateway")
        self.live = Live(State(gateway).look)
        self._tables = Tables()

    async def document(self, _: Request) -> Response:
        return Response(self._document.html, headers=dict(self._document.headers), media_type="text/html")

    async def to_document(self, _: Request) -> Response:
        """Addresses in the document are beside it."""
        return RedirectResponse("../toploc")

    async def events(self, _: Request) -> Response:
        try:
            return StreamingResponse(self.live.stream(), headers=HEADERS, media_type=MEDIA_TYPE)
        except TooManyBrowsers as error:
            raise Refusal(429, "too_many_pages", str(error)) from None

    async def answers(self, request: Request) -> Response:
        """The newest before a time, of an upstream and a verdict."""
        asked = request.query_params
        try:
            before = float(asked.get("before", "inf"))
        except ValueError:
            before = math.nan
        if math.isnan(before):
            raise Refusal(400, "malformed_request", "before: expected seconds since 1970", "before")
        of = {name: asked.get(name, "") for name in ("upstream", "verdict")}
        listed = await self._gateway.answers.listed(LISTED + 1, before=min(before, 1e12), **of)
        more = len(listed) > LISTED
        return JSONResponse({"answers": [asdict(one) for one in listed[:LISTED]], "more": more}, headers=NO_STORE)

    async def answer(self, request: Request) -> Response:
        found = await self._gateway.answers.get(request.path_params["id"])
        if found is None:
            raise Refusal(404, "report_unknown", "there is no report of this id, or it was too long ago")
        shown = await asyncio.to_thread(_shown, found)
        return JSONResponse({**found.to_json(), "answer": _json(shown)}, headers=NO_STORE)

    async def verify(self, request: Request) -> Response:
        """What an upstream's verifiers say of evidence that somebody brings. It counts for nobody's trust."""
        side = self._gateway.sides.get(request.query_params.get("upstream", ""))
        if side is None:
            raise Refusal(404, "unknown_upstream", "there is no upstream of this name", "upstream")
        if not side.upstream.options.verifiers:  # receipts alone do not say that an answer is right
            raise Refusal(409, "no_verifiers", "no verifier is asked about this upstream; choose another", "upstream")
        evidence = await self._body(request)
        try:
            report = await side.auditor.opinion(evidence)
        except MalformedEvidence as error:
            raise Refusal(400, "malformed_evidence", str(error), error.field or None) from None
        shown = await asyncio.to_thread(lambda: shown_of(report, load_json(evidence), ROOM))
        return JSONResponse({"answer": _json(shown), "report": report.model_dump(mode="json")}, headers=NO_STORE)

    async def rows(self, request: Request) -> Response:
        """The lines of a Parquet table, each evidence."""
        try:
            lines = await self._tables.lines(await self._body(request))
        except UnreadableTable as error:
            status, code = (501, "no_pyarrow") if error.missing else (400, "unreadable_table")
            raise Refusal(status, code, str(error)) from None
        return Response(lines, headers=NO_STORE, media_type="application/x-ndjson")

    async def _body(self, request: Request) -> bytes:
        return await whole(request, self._gateway.config.limits.body_bytes, self._gateway.config.timeouts.body)


def _shown(answer: Answer) -> Shown:
    """Of an answer that was not judged there is what the gateway found by itself."""
    verdict: ReportVerdict = "undecided"
    own = answer.own_checks
    report = answer.report or Report(verdict=verdict, coverage=coverage_of(own), checks=own)
    try:
        item = load_json(answer.exchange.evidence)
    except MalformedEvidence:
        item = None
    return shown_of(report, item, ROOM).model_copy(update={"verdict": answer.verdict})


def _json(shown: Shown) -> dict[str, Any]:
    return shown.model_dump(mode="json", exclude_none=True)
