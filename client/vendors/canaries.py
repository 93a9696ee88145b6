"""Prompts whose answers are hard to foresee, each drawn by a seed that no provider knows."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOT: Final = re.compile(r"\{(\w+)\}")


def canary(seed: str, number: int) -> str:
    """The prompt of this number under a seed: a template with words in its places, none of a kind twice.

    A provider that has seen the file can tell a canary from other requests, but not which answers it will be held to:
    a seed of 128 bits leaves it nothing to prepare.
    """
    parts = _parts()
    random = Random(f"{seed}:{number}")  # noqa: S311
    left = {kind: random.sample(words, len(words)) for kind, words in parts.items() if kind != "templates"}
    return SLOT.sub(lambda slot: left[slot[1]].pop(), random.choice(parts["templates"]))


@cache
def _parts() -> Mapping[str, list[str]]:
    text = (files(__package__) / "canaries.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
