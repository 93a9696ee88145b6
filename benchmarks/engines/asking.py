"""What servers are asked for: answers, and reports of answers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from folder import FIGURES, Held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from folder import Folder

Left = tuple[str, str, int, dict[str, Any]]
"""Prover, weights, number and evidence of an answer that a verifier has not seen."""


class OutOfTime(SystemExit):
    """With it servers are stopped."""


@dataclass(frozen=True)
class Asking:
    """Of servers, until a run is out of time.

    Attributes:
        at_once: requests to one server; a run looks at the time after twice as many.
        until: on the monotonic clock.
    """

    folder: Folder
    at_once: int
    until: float

    def answer(self, prover: str, weights: str, url: str, bodies: Sequence[dict[str, Any]]) -> None:
        """All that are asked, in their order."""
        with httpx.Client(base_url=url, timeout=900) as http, ThreadPoolExecutor(self.at_once) as pool:

            def ask(body: dict[str, Any]) -> dict[str, Any]:
                response = http.post("/v1/chat/completions", json=body).raise_for_status().json()
                return {"request": body, "response": response}

            for some in self.in_time(bodies):
                self.folder.keep_answers(prover, weights, pool.map(ask, some))

    def verify(self, verifier: str, url: str, left: Sequence[Left]) -> None:
        """By a server."""
        with httpx.Client(base_url=url, timeout=900) as http, ThreadPoolExecutor(self.at_once) as pool:

            def report(one: Left) -> Held:
                prover, weights, number, evidence = one
                found = http.post("/v1/toploc/verify", json=evidence).raise_for_status().json()
                checks = {check["name"]: check for check in found["checks"]}
                said = {
                    name: f"{check['status']} {check.get('reason') or ''}".strip() for name, check in checks.items()
                }
                chunks = [[chunk[name] for name in FIGURES] for chunk in checks["proofs"]["figures"]["chunks"]]
                return Held(prover, weights, verifier, number, chunks, said)

            for some in self.in_time(left):
                for held in pool.map(report, some):
                    self.folder.keep(held)

    def in_time(self, items: Sequence[Any]) -> Any:
        """So many of them at a time. Raises OutOfTime."""
        step = 2 * self.at_once
        for at in range(0, len(items), step):
            if time.monotonic() > self.until:
                raise OutOfTime("out of time; the same command goes on here")
            yield items[at : at + step]
