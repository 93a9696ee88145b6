"""The list of what our code uses of SGLang is whole, and names nothing else. SGLang need not be installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import toploc_proxy
from toploc_proxy.engines.reliance import Reliance
from toploc_proxy.engines.sglang import reliances

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(toploc_proxy.__file__).parent / "engines" / "sglang"
FILES = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.py"))
GROUPS = (reliances.COMMAND_LINE, reliances.API_SERVER, reliances.SCHEDULER)
LISTED = [one for group in GROUPS for one in group]


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name, for each import from SGLang."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "sglang":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "sglang")


@pytest.mark.parametrize("file", FILES)
def test_imports_are_on_the_list(file: str) -> None:
    used = [one for one in LISTED if file in one.users]
    on_list = {(module, one.name.partition(".")[0]) for one in used for module in one.modules}
    # A module that is imported for what is read from it.
    on_list |= {tuple(module.rsplit(".", 1)) for module, name in on_list if not name}
    missing = set(imports(ast.parse((FOLDER / f"{file}.py").read_text()))) - on_list - {("sglang", "")}
    assert not missing, f"reliances.py does not say that {file}.py uses these"


@pytest.mark.parametrize("reliance", LISTED, ids=lambda one: one.name or one.modules[0])
def test_users_use_it(reliance: Reliance) -> None:
    texts = [(FOLDER / f"{user}.py").read_text() for user in reliance.users]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    assert {*reliance.members, *reliance.attributes} <= words, "nobody uses these"


def test_each_is_asked_for() -> None:
    named = [one for one in vars(reliances).values() if isinstance(one, Reliance)]
    assert named
    assert all(one in LISTED for one in named)
