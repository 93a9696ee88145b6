"""The response that the events of a route's stream make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from toploc.evidence.assembly import Assembly

from ..asgi.sse import EventSplitter, event_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


async def assembled(events: AsyncIterable[Any]) -> dict[str, Any] | None:
    """Of events that are objects, or their text; or the error that the stream ended with."""
    assembly, splitter = Assembly(), EventSplitter()
    async for event in events:
        if isinstance(event, BaseModel):
            found = [event.model_dump(mode="json", by_alias=True)]
        else:
            data = event if isinstance(event, bytes) else event.encode()
            found = [json.loads(text) for one in splitter.feed(data) if (text := event_json(one))]
        for one in found:
            if one.get("error"):
                return one
            assembly.add(one)
    return assembly.response()
