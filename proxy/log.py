"""The package's logger, below vLLM's, which is the only tree that vLLM's logging configuration covers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

logger: Final = logging.getLogger("vllm.toploc")

SHOWN: Final = 100
"""Characters of a request's id. Clients may choose ids: they must not fill the log, nor begin a line of it."""


class RequestLogger(logging.LoggerAdapter[logging.Logger]):
    """Lines about one request: its id is in the text, for people, and a field of the record, for programs.

    VLLM_LOGGING_CONFIG_PATH may name a formatter that writes fields, as JSON or otherwise.
    """

    def __init__(self, request_id: str) -> None:
        super().__init__(logger, {"request_id": request_id})
        # What is logged may have arguments, or not.
        self._shown = ascii(request_id[:SHOWN]).replace("%", "?")

    def process(self, msg: str, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return f"toploc: request {self._shown}: {msg}", kwargs
