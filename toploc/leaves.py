"""The leaves of a response: what a verifier rehearses and a receipt signs. Nothing in here knows an engine or a route.

A leaf is a number, a text or a truth value, with the path to it; `null`, an absent field and an empty list say the
same. An empty object is a leaf of its own.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

FREE: Final[Mapping[str, str]] = {
    "id": "drawn at random for each response",
    "request_id": "drawn at random for each response",
    "choices[].message.tool_calls[].id": "drawn at random for each call",
    "output[].id": "drawn at random for each item",
    "output[].call_id": "drawn at random for each call",
    "content[].id": "drawn at random for each call",
    "content[].signature": "drawn at random for each block",
    "created": "the server's clock",
    "created_at": "the server's clock",
    "completed_at": "the server's clock",
    "choices[].weight_versions[].version": "what the operator calls the weights",
    "metadata.weight_version": "what the operator calls the weights",
    "metadata.weight_versions[].version": "what the operator calls the weights",
    "system_fingerprint": "names the server's version and options",
    "service_tier": "names what the answer is billed as",
    "model": "held by the check `model`",
    "max_output_tokens": "where the request leaves it open, the length of the server's context",
    "usage.prompt_tokens_details.cached_tokens": "what the server's cache held",
    "usage.prompt_tokens_details.created_cache_tokens": "what the server's cache held",
    "usage.input_tokens_details.cached_tokens": "what the server's cache held",
    "usage.input_tokens_details.cache_write_tokens": "what the server's cache held",
    "usage.input_tokens_details.cached_tokens_per_turn[]": "what the server's cache held",
    "usage.cache_read_input_tokens": "what the server's cache held",
    "usage.cache_creation_input_tokens": "what the server's cache held",
    "sglext.cached_tokens_details.device": "what the server's cache held",
    "sglext.cached_tokens_details.host": "what the server's cache held",
    "sglext.cached_tokens_details.storage": "what the server's cache held",
    "sglext.cached_tokens_details.storage_backend": "what the server's cache is kept in",
    "metrics.*": "how long the server took",
}
"""Leaves that no rehearsal can know, each with the reason. `[]` is any place in a list, `.*` any number below."""

FREE_CHARACTERS: Final = 256
"""Of a free text. Stops a whole answer in an id."""

LONGEST_NAME: Final = 100
"""Characters of a field's name that a path repeats. Stops names that fill reports."""

_FREE_BELOW: Final = tuple(name.removesuffix("*") for name in FREE if name.endswith(".*"))


def leaves(path: Path, value: object) -> Iterator[tuple[Path, object]]:
    """An empty object or list is a leaf of its own, and so is `null`."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves((*path, name), item)
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from leaves((*path, place), item)
    else:
        yield path, value


def is_free(path: Path, value: object) -> bool:
    """Whether the leaf is one that nothing is held against, whatever it says."""
    return is_free_at(pattern_of(path), value)


def is_free_at(pattern: str, value: object) -> bool:
    """See `is_free`, by `pattern_of` its path."""
    if isinstance(value, str):
        return pattern in FREE and len(value) <= FREE_CHARACTERS
    return not isinstance(value, dict | list) and (pattern in FREE or pattern.startswith(_FREE_BELOW))


def pattern_of(path: Path) -> str:
    return "".join("[]" if isinstance(part, int) else spelled_name(part) for part in path).removeprefix(".")


def spelled(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else spelled_name(part) for part in path).removeprefix(".")


@lru_cache(maxsize=1024)
def spelled_name(name: str) -> str:
    """A field named `[]` is no place in a list, and `a.b` is not b in a."""
    cut = name[:LONGEST_NAME]
    return f".{cut}" if name.isidentifier() else f".{json.dumps(cut)}"
