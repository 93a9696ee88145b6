"""A page as one document: its styles and scripts are within it, and it may run no others."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


DOCUMENT: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""

HEADERS: Final = {
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes of HTML, and the headers that it has to be sent with."""

    html: bytes
    headers: Mapping[str, str]


def own(name: str) -> str:
    """The text of a file of this folder."""
    return asset(__package__ or "", name)


def asset(package: str, name: str) -> str:
    """The text of a file beside a package's modules."""
    return (files(package) / name).read_text("utf-8")


def live_document(title: str, package: str, name: str) -> Document:
    """A server's page: what all of them share, with `name`.html and `name`.js of a package.

    The policy allows its own style and script, connections to its own server, and nothing else; no text can become
    HTML by any way that a script has. The icon is an empty one: for another, browsers ask the server, and a gateway
    would ask a provider.
    """
    style = own("parts.css") + own("live.css")
    script = own("parts.js") + own("live.js") + asset(package, f"{name}.js")
    body = own("live.html").replace("{title}", escape(title)).replace("{main}", asset(package, f"{name}.html"))
    parts: dict[str, Any] = {"title": escape(title), "style": style, "body": body, "script": script}
    policy = "; ".join(
        (
            *("default-src 'none'", f"script-src '{digest(script)}'", f"style-src '{digest(style)}'"),
            *("connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
            *("require-trusted-types-for 'script'", "trusted-types 'none'"),
        )
    )
    return Document(DOCUMENT.format(**parts).encode(), {**HEADERS, "content-security-policy": policy})


def digest(text: str) -> str:
    """As a content security policy names a script or a style."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
