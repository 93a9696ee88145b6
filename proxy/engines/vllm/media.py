"""Images, audio and video of prompts: what is said of them in proofs, and how a verification has them read anew.

The renderer's processor makes tensors of media, and keeps them by a name: a digest of its own, or the client's `uuid`.
What it keeps leaves it as nothing at all, since the engine has it. So media are digested before they get there.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from vllm.multimodal.media import MediaConnector, MediaWithBytes

from toploc.protocol import Media

from ..guards import require_members
from . import reliances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm.renderers import BaseRenderer

KEY: Final = "toploc_media"
"""Of a prompt with media: by modality, the digest of each item, None for one that has none."""

PROCESSED: Final = ("mm_kwargs", "mm_hashes", "mm_placeholders")
"""Keys of a prompt with media (vllm/inputs/engine.py, MultiModalInput)."""

CLIENTS: Final = "client-"
"""Before names of clients, so that none is what the processor calls another's image by."""


@dataclass(slots=True)
class Reading:
    """How a rehearsal's media were read. `unfetched`: an address led to nothing that could be."""

    unfetched: bool = False


reading: ContextVar[Reading | None] = ContextVar("toploc_reading", default=None)
"""Set in a rehearsal: its media are read anew, under names that nothing else has. A name of the request's may be taken
already, by what somebody else has sent."""


def attach(renderer: BaseRenderer) -> None:
    """Has the renderer digest media, and says of a rehearsal what could not be fetched.

    Raises:
        UnsupportedEngine: this vLLM's renderer is not as known.
    """
    require_members(renderer, reliances.RENDERER)
    process = renderer._process_multimodal_async

    async def process_and_digest(prompt: Any, mm_data: Any, mm_uuids: Any = None, **options: Any) -> Any:
        digests = await asyncio.to_thread(_digests, mm_data, mm_uuids)
        processed = await process(prompt, mm_data, mm_uuids=_names(mm_data, mm_uuids), **options)
        processed[KEY] = digests
        return processed

    renderer._process_multimodal_async = process_and_digest
    load = MediaConnector.load_from_url_async

    @functools.wraps(load)
    async def load_and_note(self: MediaConnector, url: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await load(self, url, *args, **kwargs)
        except Exception:
            now = reading.get()
            if now is not None and url[:5].lower() != "data:":
                now.unfetched = True
            raise

    MediaConnector.load_from_url_async = load_and_note


def media_of(prompt: Any) -> tuple[Media, ...] | None:
    """What proofs say of a prompt's media, by their places; None for one that has none, or any that has no digest."""
    if not isinstance(prompt, dict) or prompt.get("type") != "multimodal":
        return None
    digests, found = prompt.get(KEY) or {}, []
    for modality, places in (prompt.get("mm_placeholders") or {}).items():
        known = digests.get(modality, ())
        if len(known) != len(places) or None in known:
            return None
        found += [
            Media(modality=modality, offset=place.offset, length=place.length, sha256=sha256)
            for place, sha256 in zip(places, known, strict=True)
        ]
    return tuple(sorted(found, key=lambda one: one.offset)) or None


def with_media(prompt: dict[str, Any], rendered: Any) -> dict[str, Any]:
    """A prompt of tokens, with the media of one that begins like it."""
    if not isinstance(rendered, dict) or rendered.get("type") != "multimodal":
        return prompt
    return {**prompt, "type": "multimodal", **{name: rendered[name] for name in PROCESSED}}


def _digests(media: Mapping[str, Any], uuids: Mapping[str, Any] | None) -> dict[str, list[str | None]]:
    """Of each item of each modality. One that a client names may be another's of that name."""
    named = {} if reading.get() is not None else uuids or {}
    return {
        modality: [
            None if name is not None else _digest(item)
            for item, name in zip(items, named.get(modality) or [None] * len(items), strict=False)
        ]
        for modality, items in media.items()
        if isinstance(items, list)
    }


def _digest(item: Any) -> str | None:
    """SHA-256 of what was sent or fetched; of audio, which vLLM decodes at once, of its samples. None for embeddings.

    docs/protocol.md says of which bytes.
    """
    match item:
        case MediaWithBytes():
            return hashlib.sha256(item.original_bytes).hexdigest()
        case (np.ndarray() as samples, int() | float() as rate):
            data = np.ascontiguousarray(samples, dtype="<f4")
            return hashlib.sha256(np.array(rate, dtype="<f8").tobytes() + data.tobytes()).hexdigest()
        case _:
            return None


def _names(media: Mapping[str, Any], uuids: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the processor keeps media under, None for a digest of its own."""
    if reading.get() is not None:
        name = f"toploc-{secrets.token_hex(16)}"
        return {
            modality: [f"{name}-{modality}-{place}" for place in range(len(items))]
            for modality, items in media.items()
            if isinstance(items, list)
        }
    if uuids is None:
        return None
    return {modality: _apart(names) for modality, names in uuids.items()}


def _apart(names: Sequence[str | None] | str | None) -> Any:
    if isinstance(names, str):
        return CLIENTS + names
    return names if names is None else [name if name is None else CLIENTS + name for name in names]
