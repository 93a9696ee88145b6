"""The gateway's log: a JSON object a line, for programs, or a line of text, for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

from toploc.foreign import printable

logger: Final = logging.getLogger("toploc.gateway")

FIELDS: Final = "fields"
"""Of a record: what a line says beside its text, by name."""


def event(level: int, text: str, **fields: object) -> None:
    """A line whose `fields` programs read. What foreigners wrote cannot begin a line of its own."""
    logger.log(level, "%s", text, extra={FIELDS: {name: value for name, value in fields.items() if value is not None}})


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z"
        said = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        said |= getattr(record, FIELDS, {})
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={printable(str(value))}" for name, value in getattr(record, FIELDS, {}).items())
        return " ".join(part for part in (super().format(record), fields) if part)


def set_up(form: str) -> None:
    """`form`: json or text. Of the whole process, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
