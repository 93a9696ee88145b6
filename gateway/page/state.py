"""What the page shows of all upstreams: who is trusted, for what and since when, and what audits found and took."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ..stores.tally import Total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..gateway import Gateway
    from ..relay import Side
    from ..stores.standing import Point, Sum

DRAWN: Final = 120
"""Points of a line, which is about three hundred pixels wide."""

FIGURES: Final = 4
"""Significant digits of a point."""


class State:
    """Reads the store. `look` raises StoreUnavailable."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sums: list[Sum] = []
        self._points: Mapping[tuple[str, str, str], Sequence[Point]] = {}

    async def look(self) -> dict[str, Any]:
        gateway = self._gateway
        keep_days = gateway.config.store.keep_days
        totals, pending = await gateway.tally.totals(keep_days), await gateway.answers.pending()
        sums = sorted(await gateway.standings.sums(), key=lambda one: (one.upstream, one.model, one.test))
        if sums != self._sums:  # there are many points, and few that are new
            self._sums, self._points = sums, await gateway.standings.points()
        models = {key: _of_model(total, pending.get(key, 0)) for key, total in totals.items()}
        for key in pending.keys() - totals.keys():
            models[key] = _of_model(Total(), pending[key])
        return {
            "keep_days": keep_days,
            "failing": gateway.database.failing,
            "upstreams": [self._upstream(name, side, models) for name, side in gateway.sides.items()],
        }

    def _upstream(self, name: str, side: Side, models: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
        options = side.upstream.options
        return {
            **asdict(self._gateway.trust.of(name)),
            "serves": options.models,
            "proofs": options.proofs,
            "when": options.policy.when,
            "audit_rate": options.policy.audit_rate,
            "verifiers": [verifier.url for verifier in options.verifiers],
            "models": [{"model": model, **found} for (one, model), found in sorted(models.items()) if one == name],
            "tests": [self._test(one) for one in self._sums if one.upstream == name],
        }

    def _test(self, one: Sum) -> dict[str, Any]:
        points = self._points.get((one.upstream, one.model, one.test), ())
        return {**asdict(one), "points": [_rounded(point) for point in _thinned(points)]}


def _of_model(total: Total, pending: int) -> dict[str, Any]:
    """`answers`: all but those that no verifier could be asked about, which are pending."""
    verdicts = {name: count for name, count in total.verdicts.items() if name != "unavailable"}
    median, high = total.quantile(0.5), total.quantile(0.95)
    return {
        "answers": sum(verdicts.values()) + pending,
        "audited": total.buckets.total(),
        "verdicts": {**verdicts, "pending": pending},
        "seconds": {"median": median, "high": high, "all": round(total.seconds, 3)},
        "tokens": total.tokens,
    }


def _thinned(points: Sequence[Point]) -> list[Point]:
    """As many as are drawn, the last one among them."""
    step = -(-len(points) // DRAWN) or 1
    return list(points[::-1][::step])[::-1]


def _rounded(point: Point) -> tuple[int, float, float]:
    value, threshold = (float(f"{figure:.{FIGURES}g}") for figure in (point.value, point.threshold))
    return point.answers, value, threshold
