"""The comparison as one file that needs nothing else, runs no script and asks nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jinja2

from toploc.foreign import printable
from toploc.page.document import asset, digest, own

from .table import HEAD, cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .comparison import Row


def page(rows: Sequence[Row], *, made: str) -> str:
    """What is foreign, and all of an answer is, comes in by jinja2's escaping."""
    package = __package__ or ""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(printable=printable, digest=digest)
    template = environment.from_string(asset(package, "page.html"))
    style = own("parts.css") + asset(package, "page.css")
    return template.render(style=style, made=made, head=HEAD, rows=[(row, cells(row)) for row in rows])
