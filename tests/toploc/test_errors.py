"""The tree at the top of `toploc/errors.py` is of all errors."""

from __future__ import annotations

import ast
from pathlib import Path

import toploc.errors

ROOT = Path(__file__).parents[2]
BASES = {"Exception", "ValueError", "RuntimeError", "UnacceptedResponse", *vars(toploc.errors)}


def test_every_error_of_the_four_packages_is_named() -> None:
    classes = [
        node
        for folder in ("toploc", "proxy", "client", "gateway")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & BASES
    ]
    names = {node.name for node in classes}
    assert {"ToplocError", "RejectedResponse", "TooMany"} <= names
    description = toploc.errors.__doc__ or ""
    assert {name for name in names if name not in description} == set()
