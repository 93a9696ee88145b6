"""A thing of an engine's that our code uses. The checks at start look for it in the version that is installed, and
`make compat` in the sources of every version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Reliance:
    """One object of a module, and what of it is used.

    Attributes:
        name: in its module; dotted for a method, empty for the module itself.
        modules: where it may be, the newest place first.
        users: files of ours, without suffix: in the engine's folder, or from `proxy/` on.
        parameters: what the function takes, in this order, before any other.
        keywords: parameters that it takes by name.
        members: methods and fields of the class, names in the module, keys of the typed dictionary.
        attributes: what the class sets on `self`, or the function on any object. Only instances have them.
        texts: strings that its source contains. `make compat` alone looks for them.
        without: what is done where it is missing; empty: such a version is refused.
    """

    name: str
    modules: tuple[str, ...]
    users: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    without: str = ""

    @classmethod
    def on(
        cls,
        places: str,
        users: str,
        *,
        parameters: str = "",
        keywords: str = "",
        members: str = "",
        attributes: str = "",
        texts: str = "",
        without: str = "",
    ) -> Self:
        """From lists of words: a place is `module:name`, and all have one name."""
        modules, names = zip(*(place.split(":") for place in places.split()), strict=True)
        [name] = set(names)
        return cls(
            name,
            modules,
            tuple(users.split()),
            tuple(parameters.split()),
            tuple(keywords.split()),
            tuple(members.split()),
            tuple(attributes.split()),
            tuple(texts.split()),
            without,
        )
