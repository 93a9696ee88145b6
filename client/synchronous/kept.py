# Made from client/asynchronous/kept.py by scripts/synchronous.py: change that one.
"""Asks a server for the field of an answer that came without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kept import Reading, none_because, options, path_of

if TYPE_CHECKING:
    from openai import OpenAI

    from ..kept import Kept


def fetch(client: OpenAI, response_id: str) -> Kept:
    """Follows no redirect. Raises nothing: without its field an answer is one without proofs."""
    try:
        reading = Reading()
        reply: Any = client.get(path_of(response_id), cast_to=object, options=options())
        try:
            for part in reply.iter_bytes():
                reading.add(part)
        finally:
            reply.close()
        return reading.kept(response_id)
    except Exception as error:
        return none_because(error)
