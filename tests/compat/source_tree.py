"""What a package's source says of itself, without importing it: classes, functions, and what they have."""

from __future__ import annotations

import ast
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from toploc_proxy.engines.reliance import Reliance

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.Try, ast.With)


class Lacks(NamedTuple):
    """What is missing of a reliance, and at which of its places."""

    place: int
    names: list[str]


class Found(NamedTuple):
    """A definition, and the module that it is in."""

    module: str
    node: ast.AST


class SourceTree:
    """The Python files of a package below `folder`. Names are followed through imports within the package, members
    through base classes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parse = cache(self._parse_file)

    def lacks(self, reliance: Reliance) -> Lacks:
        """At the first of its places that has it, which is the one that is used."""
        for place, module in enumerate(reliance.modules):
            found = self.find(module, reliance.name)
            if found is not None:
                return Lacks(place, self._missing(found, reliance))
        return Lacks(0, [reliance.name or reliance.modules[0]])

    def _missing(self, found: Found, reliance: Reliance) -> list[str]:
        missing = []
        if reliance.parameters or reliance.keywords:
            positional, named = parameters(found.node)
            if positional[: len(reliance.parameters)] != reliance.parameters:
                missing.append(f"({', '.join(reliance.parameters)})")
            missing += [name for name in reliance.keywords if name not in named]
        members = self.members(found) if reliance.members else frozenset()
        missing += [name for name in reliance.members if name not in members]
        attributes = self.attributes(found) if reliance.attributes else frozenset()
        missing += [name for name in reliance.attributes if name not in attributes]
        texts = strings(found.node) if reliance.texts else frozenset()
        return [*missing, *(repr(text) for text in reliance.texts if text not in texts)]

    def find(self, module: str, name: str) -> Found | None:
        """The definition of a dotted name of a module, of the module itself if the name is empty."""
        tree = self._parse(module)
        if tree is None:
            return None
        if not name:
            return Found(module, tree)
        first, _, rest = name.partition(".")
        found = self._find_first(module, tree, first)
        for part in rest.split(".") if rest else ():
            found = None if found is None else self._find_member(found, part)
        return found

    def members(self, found: Found) -> frozenset[str]:
        """What a class has without an instance, or a module."""
        return frozenset(
            name
            for owner in self._with_bases(found)
            for statement in flatten(owner.node)
            for name in defined_by(statement)
        )

    def attributes(self, found: Found) -> frozenset[str]:
        """What an instance of a class has, or a function sets."""
        if isinstance(found.node, Function):
            return frozenset(stored_attributes(found.node, on=None))
        classes = self._with_bases(found)
        stored = chain.from_iterable(stored_attributes(owner.node, on="self") for owner in classes)
        return frozenset(stored) | self.members(found)

    def _with_bases(self, found: Found, seen: frozenset[ast.AST] = frozenset()) -> list[Found]:
        bases = []
        for base in found.node.bases if isinstance(found.node, ast.ClassDef) else ():
            # `Base[T]` is Base.
            inner = base.value if isinstance(base, ast.Subscript) else base
            above = self.find(found.module, inner.id) if isinstance(inner, ast.Name) else None
            if above is not None and above.node not in seen:
                bases += self._with_bases(above, seen | {found.node})
        return [found, *bases]

    def _find_member(self, found: Found, name: str) -> Found | None:
        for owner in self._with_bases(found):
            for statement in flatten(owner.node):
                if name in defined_by(statement):
                    return Found(owner.module, statement)
        return None

    def _find_first(self, module: str, tree: ast.Module, name: str) -> Found | None:
        stars = []
        for statement in flatten(tree):
            if isinstance(statement, ast.ImportFrom):
                source = self._absolute(module, statement)
                for alias in statement.names:
                    if alias.name == "*":
                        stars.append(source)
                    elif (alias.asname or alias.name) == name:
                        # Of another package, or a module: taken for what it says it is.
                        return self.find(source, alias.name) or Found(module, statement)
            elif name in defined_by(statement):
                return Found(module, statement)
        return next(filter(None, (self.find(source, name) for source in stars)), None)

    def _absolute(self, module: str, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = module.split(".")
        kept = len(parts) - statement.level + self._is_package(module)
        return ".".join([*parts[:kept], *([statement.module] if statement.module else [])])

    def _is_package(self, module: str) -> bool:
        return self._folder.joinpath(*module.split("."), "__init__.py").exists()

    def _parse_file(self, module: str) -> ast.Module | None:
        path = self._folder.joinpath(*module.split("."))
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.exists():
                return ast.parse(file.read_text())
        return None


def flatten(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a body, also those under a condition."""
    for statement in chain(*(getattr(node, part, ()) for part in ("body", "orelse", "finalbody"))):
        yield statement
        if isinstance(statement, BLOCKS):
            yield from flatten(statement)
    for handler in getattr(node, "handlers", ()):
        yield from flatten(handler)


def defined_by(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case _:
            return []


def stored_attributes(node: ast.AST, on: str | None) -> Iterator[str]:
    """Names in `on.name = …` anywhere within."""
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()) if on in (None, owner):
                yield name


def parameters(node: ast.AST) -> tuple[tuple[str, ...], frozenset[str]]:
    """Those that may be given by position, in order, and all that have a name."""
    if not isinstance(node, Function):
        return (), frozenset()
    positional = tuple(argument.arg for argument in (*node.args.posonlyargs, *node.args.args))
    return positional, frozenset(positional) | {argument.arg for argument in node.args.kwonlyargs}


def strings(node: ast.AST) -> frozenset[str]:
    return frozenset(
        inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    )
