"""What a request carries of its media, as base64 in its texts. The rest was fetched, or decoded, by the server."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK: Final = "base64,"
"""Before the data of a `data:` URL (RFC 2397)."""


class Carried:
    """SHA-256 of all bytes that the texts of a request say in base64, and of that base64 itself, in hexadecimal.

    A video of JPEG images is a list of base64 texts, of which no decoder makes bytes: its digest is of the text. They
    are looked for once, at the first question: a request may have megabytes, and many choices.
    """

    def __init__(self, request: object = None) -> None:
        self._request = request

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._sha256s

    @cached_property
    def _sha256s(self) -> frozenset[str]:
        return frozenset(_digests(self._request))


def _digests(value: object) -> Iterator[str]:
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
        elif isinstance(item, str):
            text = item.partition(MARK)[2] if item[:5].lower() == "data:" else item
            data = text.encode()
            yield hashlib.sha256(data).hexdigest()
            try:
                yield hashlib.sha256(b64decode(data, validate=True)).hexdigest()
            except binascii.Error:
                continue
