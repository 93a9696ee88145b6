"""The comparison as one file that needs nothing else, runs no script and asks nobody."""

from __future__ import annotations

import base64
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from toploc.foreign import printable

from .table import HEAD, cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .comparison import Row


def page(rows: Sequence[Row], *, made: str) -> str:
    """What is foreign, and all of an answer is, comes in by jinja2's escaping."""
    folder = files(__package__)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(printable=printable, digest=_digest)
    template = environment.from_string((folder / "page.html").read_text("utf-8"))
    style = (folder / "page.css").read_text("utf-8")
    return template.render(style=style, made=made, head=HEAD, rows=[(row, cells(row)) for row in rows])


def _digest(text: str) -> str:
    """As a content security policy names a style."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
