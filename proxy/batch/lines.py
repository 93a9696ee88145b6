"""The lines of OpenAI's batch files, as vLLM's `run-batch` has them (vllm/entrypoints/launchers/run_batch.py)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Asked(BaseModel):
    """A line of the input: `body` is for the route `url` of the server."""

    model_config = ConfigDict(frozen=True)

    custom_id: str
    method: str = Field(pattern="^POST$")
    url: str = Field(pattern="^/")
    body: dict[str, Any]


def read_lines(text: str, name: str) -> Iterator[Asked]:
    """Blank lines say nothing. Raises ToplocError, with the number of the first line that is wrong."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield Asked.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(map(str, first["loc"])) or "the line"
                raise ToplocError(f"{name}, line {number}: {where}: {first['msg']}") from None


class Reply(BaseModel):
    """`body` is null where `error` says why."""

    model_config = ConfigDict(frozen=True)

    status_code: int
    request_id: str
    body: Any = None


class Answered(BaseModel):
    """A line of the output."""

    model_config = ConfigDict(frozen=True)

    id: str
    custom_id: str
    response: Reply
    error: Any = None

    @classmethod
    def of(cls, asked: Asked, status: int, body: Any) -> Self:
        """`body`: of the response, or of the error where the status is one."""
        failed = status >= 400
        request_id = f"vllm-batch-{secrets.token_hex(8)}"
        reply = Reply(status_code=status, request_id=request_id, body=None if failed else body)
        made = f"vllm-{secrets.token_hex(8)}"
        return cls(id=made, custom_id=asked.custom_id, response=reply, error=body if failed else None)


def error(message: str, code: int) -> Mapping[str, Any]:
    """As a server has it."""
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}
