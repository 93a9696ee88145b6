"""The gateway's own routes, below /toploc: health, metrics, reports, upstreams."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import authorize
from .errors import Refusal, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from .config import Config
    from .gateway import Gateway
    from .page.page import Page

    Endpoint = Callable[[Request], Awaitable[Response]]


def routes(gateway: Gateway, page: Page) -> list[Route]:
    own = _Pages(gateway)

    def guarded(route: Endpoint) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                authorize(gateway.config, request)
                _refuse_other_sites(request)
                return await route(request)
            except Refusal as refusal:
                return refusal.response()
            except StoreUnavailable as error:
                return Refusal(503, "store_unavailable", str(error)).response()

        return endpoint

    return [
        Route("/health", own.health),  # balancers have no key
        Route("/", page.to_document),
        Route("/events", guarded(page.events)),
        Route("/answers", guarded(page.answers)),
        Route("/answers/{id}", guarded(page.answer)),
        Route("/verify", guarded(page.verify), methods=["POST"]),
        Route("/rows", guarded(page.rows), methods=["POST"]),
        Route("/metrics", guarded(own.metrics)),
        Route("/upstreams", guarded(own.upstreams)),
        Route("/upstreams/{name}/{state}", guarded(own.put), methods=["POST"]),
        Route("/reports/{id}", guarded(own.report)),
        Route("/reports/{id}/evidence", guarded(own.evidence)),
    ]


def _refuse_other_sites(request: Request) -> None:
    """Stops a page of somebody else's, open in a browser that reaches a gateway without keys. Programs do not say where
    they are from, and browsers always do. Raises Refusal."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refusal(403, "other_site", "only the gateway's own page may ask this from a browser")


class _Pages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def health(self, _: Request) -> Response:
        """503 where answers cannot be stored, or a model has no upstream that may be asked."""
        gateway, problems = self._gateway, list[str]()
        if gateway.database.failing:
            problems.append("store")
        usable = [s.upstream.options for n, s in gateway.sides.items() if gateway.trust.of(n).state != "quarantined"]
        models = {model for side in gateway.sides.values() for model in side.upstream.options.models}
        if any(all(not one.serves(model) for one in usable) for model in models):
            problems.append("upstreams")
        return JSONResponse({"status": "failing" if problems else "ok", "problems": problems}, 503 if problems else 200)

    async def metrics(self, _: Request) -> Response:
        return Response(self._gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    async def upstreams(self, _: Request) -> Response:
        """Their standing, what came of their answers, and how far the sequential tests are."""
        gateway = self._gateway
        counts, sums = await gateway.answers.counts(), await gateway.standings.sums()
        shown = []
        for name, side in gateway.sides.items():
            models = dict[str, dict[str, int]]()
            for upstream, model, verdict, number in counts:
                if upstream == name:
                    models.setdefault(model, {})[verdict] = number
            tests = [{n: v for n, v in asdict(one).items() if n != "upstream"} for one in sums if one.upstream == name]
            options = side.upstream.options
            known = {"name": name, "models": options.models, "proofs": options.proofs}
            standing = {n: v for n, v in asdict(gateway.trust.of(name)).items() if n != "upstream"}
            shown.append({**known, **standing, "answers": models, "tests": tests})
        return JSONResponse({"upstreams": shown})

    async def put(self, request: Request) -> Response:
        """An operator's word: `return` or `quarantine`."""
        name, state, trust = request.path_params["name"], request.path_params["state"], self._gateway.trust
        if name not in self._gateway.sides:
            raise Refusal(404, "unknown_upstream", "there is no upstream of this name")
        if state == "return":
            await trust.readmit(name, "an operator's word")
        elif state == "quarantine":
            await trust.quarantine(name, "an operator's word")
        else:
            raise Refusal(404, "unknown_state", "an upstream can `return` or be put in `quarantine`")
        return JSONResponse({n: v for n, v in asdict(trust.of(name)).items() if n != "upstream"})

    async def report(self, request: Request) -> Response:
        found = await self._gateway.answers.get(request.path_params["id"])
        if found is None:
            raise Refusal(404, "report_unknown", "there is no report of this id, or it was too long ago")
        return JSONResponse(found.to_json())

    async def evidence(self, request: Request) -> Response:
        """As `toploc verify` reads it."""
        found = await self._gateway.answers.get(request.path_params["id"])
        if found is None:
            raise Refusal(404, "report_unknown", "there is no report of this id, or it was too long ago")
        return Response(found.exchange.evidence, media_type="application/json")


def models(config: Config) -> dict[str, Any] | None:
    """In place of one upstream's list; None where the first upstream's own is the list."""
    if len(config.upstreams) == 1 or any("*" in one.models for one in config.upstreams):
        return None
    owners = {model: one.name for one in reversed(config.upstreams) for model in one.models}
    listed = [{"id": model, "object": "model", "created": 0, "owned_by": owner} for model, owner in owners.items()]
    return {"object": "list", "data": listed}
