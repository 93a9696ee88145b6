"""Asks a server for the field of an answer that came without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kept import Reading, none_because, options, path_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from ..kept import Kept


async def fetch(client: AsyncOpenAI, response_id: str) -> Kept:
    """Follows no redirect. Raises nothing: without its field an answer is one without proofs."""
    try:
        reading = Reading()
        reply: Any = await client.get(path_of(response_id), cast_to=object, options=options())
        try:
            async for part in reply.iter_bytes():
                reading.add(part)
        finally:
            await reply.close()
        return reading.kept(response_id)
    except Exception as error:
        return none_because(error)
