"""The tag that a request carries to the worker in `SamplingParams.extra_args`.

The worker keys its captures by the tag's nonce, since vLLM's request ids may come from the client and repeat.
A client can put values into `extra_args` too (`vllm_xargs`), hence the MAC.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

EXTRA_ARG: Final = "toploc"
"""The key in `extra_args`; a client's own value under it is dropped before a request is tagged."""


class Key(NamedTuple):
    """Names a capture: the nonce of the call of `generate` and the index of the choice."""

    nonce: str
    child: int


@dataclass(frozen=True, slots=True)
class Tag:
    """Identifies one call of `generate`.

    Attributes:
        nonce: 32 hexadecimal digits, random.
        children: how many choices share the tag (`n`); each is a request of its own in the engine.
        start: position of the first row to capture; None for generation, where it is the last prompt position.
    """

    nonce: str
    children: int = 1
    start: int | None = None

    @classmethod
    def new(cls, *, children: int = 1, start: int | None = None) -> Self:
        return cls(nonce=secrets.token_hex(16), children=children, start=start)

    def seal(self, secret: str) -> dict[str, Any]:
        """The value to store under `EXTRA_ARG`."""
        return {"nonce": self.nonce, "children": self.children, "start": self.start, "mac": self._mac(secret)}

    @classmethod
    def open(cls, extra_args: Mapping[str, Any] | None, secret: str) -> Self | None:
        """The tag in a request's `extra_args`, or None if there is none that this server made."""
        value = (extra_args or {}).get(EXTRA_ARG)
        if not isinstance(value, Mapping):
            return None
        nonce, children, start = value.get("nonce"), value.get("children"), value.get("start")
        if not (isinstance(nonce, str) and isinstance(children, int) and isinstance(start, int | None)):
            return None
        tag = cls(nonce=nonce, children=children, start=start)
        mac = value.get("mac")
        # Neither a lone surrogate nor a sign beyond ASCII may raise here, in the engine.
        if not isinstance(mac, str) or not hmac.compare_digest(_bytes(mac), tag._mac(secret).encode()):
            return None
        return tag

    def child_index(self, request_id: str) -> int | None:
        """The choice that an engine request makes: vLLM names the children of n > 1 `{index}_{id}`
        (vllm/v1/engine/parallel_sampling.py). None if the id does not say."""
        if self.children == 1:
            return 0
        index = request_id.partition("_")[0]
        return int(index) if index.isdecimal() else None

    def _mac(self, secret: str) -> str:
        message = f"{self.nonce}|{self.children}|{self.start}"
        return hmac.digest(secret.encode(), _bytes(message), "sha256").hex()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
