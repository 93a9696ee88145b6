"""Every leaf of a response is bound to its tokens, or free by name: of all recorded answers, on every route.

Each leaf is changed, removed and doubled; each list is put in another order and given an element twice; each object is
given a foreign field. The route judges every one of these responses, by a rehearsal of the recording (`once.py`).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from mcp_tool import tool_server
from mutations import changed, leaves, mutations
from options import SERVE
from toploc_proxy.local_server import LocalServer

from toploc.leaves import is_free
from toploc.protocol import FIELD_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asking import Api
    from mutations import Json

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "toploc" / "evidence"
DOCUMENT = ROOT / "docs" / "security.md"
ROUTES = ("chat", "batch", "completion", "response", "message", "generate")
NOT_ACCEPTED: Final[dict[str, str | None]] = {
    **{f"{kind}-{how}": "rejected" for kind in ("int4", "finetuned") for how in ("greedy", "sampled")},
    "other-system": "rejected",
    "no-output": "undecided",
    "no-proofs": "malformed",
    # Of a response that the server remembered, which made it.
    "response-previous": "undecided",
    "response-previous-stream": "undecided",
    # Recorded before servers named their sampler.
    "seeded": "undecided",
    # Log-probabilities under a grammar's mask, of which a list may be `not_bound`.
    "chat-reasoning-logprobs": None,
}
"""Recordings that no server of the model accepts as they are, or that one may not."""

AT_ONCE: Final = 4_000_000
"""Bytes of a request, within the limit of one body."""


@dataclass(slots=True)
class Count:
    """Of a route."""

    recordings: int = 0
    leaves: int = 0
    free: int = 0
    held: int = 0
    changes: int = 0


counted: dict[str, Count] = defaultdict(Count)
done: set[str] = set()


def recordings() -> dict[str, Path]:
    return {path.stem: path for path in sorted(RECORDED.glob("**/*.json"))}


@pytest.fixture(scope="module")
def api(api_of: type[Api]) -> Iterator[Api]:
    options = [*SERVE, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    # Not warm: what `once.py` imports, an engine may not have at its start.
    command = [sys.executable, str(Path(__file__).with_name("once.py"))]
    with (
        tool_server() as tools,
        LocalServer([str(ROOT / "models" / "toploc-mini"), *options, "--tool-server", tools], command=command) as local,
        api_of(local.url) as api,
    ):
        yield api


def verdicts(api: Api, group: str, request: Json, responses: list[Json]) -> list[str]:
    """In their order. What is not to be read at all is `malformed`."""
    asked = json.dumps(request)
    items = [f'{{"request": {asked}, "response": {json.dumps(response)}}}' for response in responses]
    found: list[str] = []
    while len(found) < len(items):
        size, part = 0, []
        for item in items[len(found) : len(found) + 1000]:
            size += len(item)
            if size > AT_ONCE:
                break
            part.append(item)
        reply = api.http.post(f"/v1/toploc/verify?as={group}", content=f'{{"items": [{",".join(part)}]}}')
        lines = sorted((json.loads(line) for line in reply.text.splitlines()), key=lambda line: line["index"])
        assert len(lines) == len(part), reply.text[:1000]
        found += [line["report"]["verdict"] if "report" in line else "malformed" for line in lines]
    return found


@pytest.mark.parametrize("name", recordings())
def test_no_leaf_is_neither_held_nor_free(api: Api, name: str) -> None:
    path = recordings()[name]
    group = path.parent.name
    evidence = json.loads(path.read_text("utf-8"))
    request, response = evidence["request"], evidence["response"]
    [verdict] = verdicts(api, group, request, [response])
    assert verdict == (NOT_ACCEPTED.get(name, "accepted") or verdict)
    done.add(name)
    if name in NOT_ACCEPTED:
        return
    field = response.pop(FIELD_NAME)
    text = json.dumps(response)
    made = [*mutations(response)]
    mutants = [{**changed(text, path, how), FIELD_NAME: field} for path, how in made]
    accepted = {
        mutation
        for mutation, verdict in zip(made, verdicts(api, group, request, mutants), strict=True)
        if verdict == "accepted"
    }
    free = {path for path, value in leaves(response) if is_free(path, value)}
    # The check `model` holds the name. Streams of tokens have none, only their proofs do.
    nameless = {(("model",), "removed")} if "token_ids" in request and "model" in response else set()
    assert accepted == nameless | {(path, how) for path in free - {("model",)} for how in ("changed", "removed")}
    count = counted[route_of(request, response)]
    count.recordings += 1
    count.changes += len(made)
    count.free += len(free)
    for path, _ in leaves(response):
        count.leaves += 1
        count.held += path not in free and not any((path, how) in accepted for how in ("changed", "removed", "doubled"))


def route_of(request: Json, response: Json) -> str:
    if response.get("type") == "message":
        return "message"
    if "token_ids" in request:
        return "generate"
    if "messages" not in request:
        return "response" if "input" in request else "completion"
    return "batch" if isinstance(request["messages"][0], list) else "chat"


def test_the_table_of_the_document() -> None:
    """What docs/security.md says; printed in full where it says other."""
    if done != {*recordings()}:
        pytest.skip("needs all recordings")
    rows = [
        f"| {route} | {c.recordings} | {c.leaves:,} | {c.held:,} | {c.free:,} | {c.held / (c.leaves - c.free):.0%} | "
        f"{c.changes:,} |"
        for route in ROUTES
        for c in [counted[route]]
    ]
    table = "\n".join(
        [
            "| route | recordings | leaves | held to the tokens | free by name | of those not free | changes tried |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )
    assert table in DOCUMENT.read_text("utf-8"), table
