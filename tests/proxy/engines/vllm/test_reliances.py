"""The list of what our code uses of vLLM is whole, names nothing else, and is what the published table is of."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import toploc_proxy
import vllm
from compat import requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from reliance_table import HEAD, cell, described, listed, published, published_versions
from source_tree import SourceTree
from toploc_proxy.engines.reliance import Reliance
from toploc_proxy.engines.vllm import reliances
from toploc_proxy.engines.vllm.reliances import TESTED

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXY = Path(toploc_proxy.__file__).parent
FILES = sorted(file.relative_to(PROXY).as_posix() for file in PROXY.rglob("*.py"))
LIST = "engines/vllm/reliances.py"


def file_of(user: str) -> str:
    """Its path below `proxy/`."""
    return f"{user.removeprefix('proxy/') if user.startswith('proxy/') else f'engines/vllm/{user}'}.py"


def relied_on_by(file: str) -> list[Reliance]:
    return [one for one in listed() if file in map(file_of, one.users)]


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name, for each import from vLLM."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "vllm":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "vllm")


@pytest.mark.parametrize("file", FILES)
def test_imports_are_on_the_list(file: str) -> None:
    on_list = {(module, one.name.partition(".")[0]) for one in relied_on_by(file) for module in one.modules}
    # `import vllm` is for what is read from the module.
    on_list |= {(module, "") for module, _ in on_list}
    missing = set(imports(ast.parse((PROXY / file).read_text()))) - on_list
    assert not missing, f"{LIST} does not say that proxy/{file} uses these"


@pytest.mark.parametrize("file", FILES)
def test_what_is_read_from_vllms_types_is_on_the_list(file: str) -> None:
    """As far as annotations tell: of a parameter whose type is vLLM's."""
    tree = ast.parse((PROXY / file).read_text())
    types = {name for _, name in imports(tree)}
    on_list = {(one.name, name) for one in listed() for name in (*one.members, *one.attributes)}
    read = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            typed = {
                a.arg: names & types for a in arguments if a.annotation and (names := names_in(a.annotation)) & types
            }
            for node in chain.from_iterable(ast.walk(statement) for statement in function.body):
                match node:
                    case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in typed:
                        read |= {(kind, attribute) for kind in typed[name]}
    assert not read - on_list, f"{LIST} does not say that proxy/{file} uses these"


def names_in(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("reliance", listed(), ids=lambda one: one.name or one.modules[0])
def test_users_use_it(reliance: Reliance) -> None:
    texts = {user: (PROXY / file_of(user)).read_text() for user in reliance.users}
    names = (*reliance.members, *reliance.attributes, *reliance.texts)
    words = {user: set(re.findall(r"[\w.-]+", text)) | set(re.findall(r"\w+", text)) for user, text in texts.items()}
    assert set(names) - {"__str__"} <= set().union(*words.values()), "nobody uses these"


def test_each_has_a_group() -> None:
    """What has a name in the module, and so is asked for apart, is in the table too."""
    named = [one for one in vars(reliances).values() if isinstance(one, Reliance)]
    assert named
    assert all(listed().count(one) == 1 for one in named)
    assert all(one in listed() for one in reliances.API_SERVER)


def test_the_published_table_is_of_this_list() -> None:
    _, rows = published()
    found = [tuple(row[: len(HEAD)]) for row in rows]
    assert found == [described(one) for one in listed()], "run `make compat`, which looks for what is new"


def test_the_table_says_of_the_installed_version_what_its_sources_say() -> None:
    versions, rows = published()
    minor = Version(vllm.__version__).release[:2]
    [column] = [i for i, version in enumerate(versions, len(HEAD)) if Version(version).release[:2] == minor]
    tree = SourceTree(Path(vllm.__file__).parents[1])
    assert [row[column] for row in rows] == [cell(one, tree.lacks(one)) for one in listed()]


def test_the_package_takes_what_the_table_has() -> None:
    versions = list(map(Version, published_versions()))
    oldest, newest = min(versions), max(versions)
    wanted = SpecifierSet(f">={oldest.major}.{oldest.minor},<{newest.major}.{newest.minor + 1}")
    assert requirement().specifier == wanted
    assert set(TESTED) <= set(published_versions())
