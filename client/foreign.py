"""Errors of the SDK's code about what no server of its own sends, made into this client's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from openai import OpenAIError
from pydantic import ValidationError

from toploc.errors import ToplocError
from toploc.foreign import quote
from toploc.report import Check

from .errors import UndecidedResponse
from .judgement import Judgement

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS: Final = (OpenAIError, ToplocError, ValidationError)
"""What an application may expect. ValidationError is of the model that it has answers parsed into."""

BROKEN: Final = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError, OverflowError)
"""What code raises that trusts what it reads."""


@contextmanager
def guarded(response: Any) -> Iterator[None]:
    """Raises UndecidedResponse in place of them."""
    try:
        yield
    except OURS:
        raise
    except BROKEN as error:
        message = f"the SDK cannot read the answer: {quote(f'{type(error).__name__}: {error}')}"
        check = Check(name="response", status="undecided", reason="malformed", message=message)
        raise UndecidedResponse(response, Judgement.by("all", [], [check])) from error
