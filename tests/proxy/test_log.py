"""What the log says of one request."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from toploc_proxy.log import SHOWN, RequestLogger

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lines(logging.Handler):
    """As an operator's own formatter writes them (VLLM_LOGGING_CONFIG_PATH)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: getattr(record, name, None) for name in ("request_id", "outcome")}
        self.lines.append(json.dumps({"message": record.getMessage(), **fields}))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    # vLLM's level is what the environment said when it was first imported.
    caplog.set_level(logging.INFO, "vllm.toploc")
    handler, log = Lines(), logging.getLogger("vllm.toploc")
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def test_the_request_is_in_the_text_and_a_field(lines: list[str]) -> None:
    RequestLogger("chatcmpl-1").warning("no proofs: %s", "rows_missing", extra={"outcome": "rows_missing"})
    RequestLogger("").error("putting proofs together failed")
    first, second = map(json.loads, lines)
    assert first["message"] == "toploc: request 'chatcmpl-1': no proofs: rows_missing"
    assert (first["request_id"], first["outcome"]) == ("chatcmpl-1", "rows_missing")
    assert second["message"] == "toploc: request '': putting proofs together failed"


@pytest.mark.parametrize("hostile", ["x\nERROR forged", "%s%d%(a)s", "\x1b[2J", "y" * 10_000])
def test_ids_that_clients_chose_neither_break_lines_nor_fill_the_log(lines: list[str], hostile: str) -> None:
    RequestLogger(hostile).warning("no proofs")
    RequestLogger(hostile).warning("no proofs: %s", "why")
    for line in lines:
        message = json.loads(line)["message"]
        assert message.isprintable()
        assert "no proofs" in message
        assert len(message) < SHOWN + 100
