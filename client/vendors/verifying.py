"""What a verifier of the claimed model says of vendors' answers: how many tokens they have, and whether it would say
them."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import httpx

from toploc.errors import VerifierUnavailable
from toploc.evidence.unproven import without_proofs
from toploc.receipts.request import evidence_of
from toploc.report import Report
from toploc.verifier.server import AsyncVerifier

from ..audit.entry import Entry, entry_of, unreported
from .findings import Counts, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .asking import Reply
    from .config import Config, Verifier

BATCH: Final = 8
"""Answers of one request to the verifier."""

SECONDS: Final = 60.0
"""For a count."""


class Counter:
    """Counts by the verifier's route `/tokenize`, which renders as its chats do."""

    def __init__(self, options: Verifier) -> None:
        key = {} if options.api_key is None else {"authorization": f"Bearer {options.api_key.get_secret_value()}"}
        self._url = options.url.rstrip("/").removesuffix("/v1") + "/tokenize"
        self._http = httpx.AsyncClient(headers=key, timeout=SECONDS)
        self._known: dict[bytes, int | None] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def counts(self, reply: Reply) -> Counts:
        """None of what cannot be counted: it accuses nobody."""
        names = ("messages", "tools", "chat_template_kwargs")
        chat = {name: reply.request[name] for name in names if reply.request.get(name) is not None}
        prompt = await self._count({**chat, "add_generation_prompt": True})
        text = text_of(reply.response)
        completion = None if text is None else await self._count({"prompt": text, "add_special_tokens": False})
        return Counts(prompt, completion)

    async def _count(self, body: dict[str, Any]) -> int | None:
        digest = sha256(json.dumps(body, sort_keys=True).encode()).digest()
        if digest not in self._known:
            try:
                response = await self._http.post(self._url, json=body)
                count = response.json()["count"] if response.is_success else None
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                count = None
            self._known[digest] = count if isinstance(count, int) and not isinstance(count, bool) else None
        return self._known[digest]


async def reports(config: Config, replies: Sequence[Reply]) -> list[Entry]:
    """Of the responses that came, in order, each held to its text alone; one that the verifier did not report on is
    undecided."""
    options = config.verifier
    if options is None:
        return []
    key = None if options.api_key is None else options.api_key.get_secret_value()
    held = [reply for reply in replies if reply.response is not None]
    data = [_evidence(reply) for reply in held]
    found: dict[int, Report] = {}
    async with AsyncVerifier(options.url, api_key=key, timeout=options.timeout) as verifier:

        async def batch(first: int) -> None:
            items = [without_proofs(one, config.sampling) for one in data[first : first + BATCH]]
            try:
                async for index, result in verifier.verify_many(items):
                    if not isinstance(result, Report):
                        result = unreported("unverified", str(result))
                    found[first + index] = result
            except VerifierUnavailable as error:
                for place in range(first, first + len(items)):
                    found.setdefault(place, unreported("unverified", str(error)))

        await asyncio.gather(*(batch(first) for first in range(0, len(data), BATCH)))
    return [
        entry_of(place + 1, 0, sha256(one).hexdigest(), one, found[place], options.url)
        for place, one in enumerate(data)
    ]


def _evidence(reply: Reply) -> bytes:
    request, response = (json.dumps(value).encode() for value in (reply.request, reply.response))
    return evidence_of(request, response)
