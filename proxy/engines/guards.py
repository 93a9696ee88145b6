"""What is asked of the engine that is found, by the list in its `reliances.py`: a changed one is refused, and never
proven wrongly."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import UnsupportedEngine

if TYPE_CHECKING:
    from .reliance import Reliance

NAMES: Final = {"vllm": "vLLM", "sglang": "SGLang"}
"""Of engines, by their packages."""


def load(reliance: Reliance) -> Any:
    """The object itself, from the first place that has it.

    Raises:
        UnsupportedEngine: none has.
    """
    for module in reliance.modules:
        found = _find(module, reliance.name)
        if found is not None:
            return found
    raise _unsupported(reliance, f"there is no {reliance.name} in {' or '.join(reliance.modules)}")


def method(instance: object, reliance: Reliance) -> Any:
    """The object's method of this name. Raises UnsupportedEngine."""
    name = reliance.name.rpartition(".")[2]
    _refuse(reliance, [] if hasattr(instance, name) else [name], type(instance).__name__)
    return getattr(instance, name)


def require(*reliances: Reliance) -> None:
    """Each is there, with what is used of it as far as modules, classes and functions tell. Imports them.

    Raises:
        UnsupportedEngine: one that nothing replaces is not.
    """
    for reliance in reliances:
        if reliance.without:
            continue
        found = load(reliance)
        if reliance.parameters or reliance.keywords:
            require_parameters(found, reliance)
        missing = [name for name in reliance.members if not _has(found, name)]
        _refuse(reliance, missing, reliance.name or reliance.modules[0])


def require_members(instance: object, reliance: Reliance) -> None:
    """The object has what is used of its class, also what only objects have. Raises UnsupportedEngine."""
    names = *reliance.members, *reliance.attributes
    _refuse(reliance, [name for name in names if not hasattr(instance, name)], reliance.name)


def require_parameters(function: Any, reliance: Reliance) -> None:
    """The function, or a method without its `self`, takes what it is called with. Raises UnsupportedEngine."""
    found = [name for name in inspect.signature(function).parameters if name != "self"]
    wanted = [name for name in reliance.parameters if name != "self"]
    if found[: len(wanted)] != wanted or not {*reliance.keywords} <= {*found}:
        wanted += reliance.keywords
        raise _unsupported(reliance, f"{reliance.name} takes {', '.join(found)}, not {', '.join(wanted)}")


def takes(reliance: Reliance) -> bool:
    """Whether a function of this engine has the parameters that are given to it by name where it has them."""
    return {*reliance.keywords} <= {*inspect.signature(load(reliance)).parameters}


def _find(module: str, name: str) -> Any:
    """None if there is no such module, or not in it."""
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        # That the engine is missing, or a package that it needs, is another matter.
        if not (error.name or "").startswith(f"{module.partition('.')[0]}.") or not f"{module}.".startswith(
            f"{error.name}."
        ):
            raise
        return None
    for part in filter(None, name.split(".")):
        found = getattr(found, part, None)
    return found


def _has(owner: Any, name: str) -> bool:
    """Of a module or class: fields without a default are not among a class's attributes."""
    return hasattr(owner, name) or any(
        name in getattr(owner, fields, ()) for fields in ("__dataclass_fields__", "__annotations__")
    )


def _refuse(reliance: Reliance, missing: list[str], where: str) -> None:
    if missing:
        raise _unsupported(reliance, f"{where} has no {', '.join(missing)}")


def _unsupported(reliance: Reliance, what: str) -> UnsupportedEngine:
    package = reliance.modules[0].partition(".")[0]
    # Not with this module: commands set variables first, which an engine reads when it is imported.
    version = getattr(import_module(package), "__version__", "")
    name = NAMES[package]
    return UnsupportedEngine(
        f"toploc: {name} {version} is not one this version knows: {what}. Install one that docs/operations.md lists, "
        "or serve without proofs"
    )
