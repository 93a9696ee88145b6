"""What is found in a package's source, and what is said to be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from source_tree import SourceTree
from toploc_proxy.engines.reliance import Reliance

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "engine/__init__.py": """
from typing import TYPE_CHECKING
from .deep.runner import Runner as Exported
from .deep.shared import *
if TYPE_CHECKING:
    platform: str
def __getattr__(name): ...
""",
    "engine/deep/__init__.py": "",
    "engine/deep/shared.py": """
class Base(Generic[T]):
    inherited: int
    def __init__(self):
        self.own = 1
    def method(self): ...
def starred(first): ...
""",
    "engine/deep/runner.py": """
from ..deep.shared import Base
from elsewhere import Foreign
try:
    import fast
except ImportError:
    fast = None
class Runner(Base[int], Foreign):
    def __init__(self, other):
        super().__init__()
        self.set, other.unset = 1, 2
        self.read.deeper = 3
    async def call(self, rows, *, seed=None, **options):
        self.later: int = 0
        return "text"
    if True:
        def conditional(self): ...
def init(state):
    state.route = 1
    return state.never
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return SourceTree(tmp_path)


def lacks(tree: SourceTree, places: str, **wanted: str) -> tuple[int, list[str]]:
    return tuple(tree.lacks(Reliance.on(places, "nobody", **wanted)))


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("engine:platform", {}),
        ("engine:starred", {"parameters": "first"}),
        ("engine:Exported", {"attributes": "own set later call"}),
        ("engine:Exported.call", {"parameters": "self rows", "keywords": "seed"}),
        ("engine:Exported.method", {"parameters": "self"}),
        ("engine.deep.runner:Runner", {"members": "inherited method call conditional", "texts": "text"}),
        ("engine.deep.runner:fast", {}),
        ("engine.deep.runner:Foreign", {}),
        ("engine.deep.runner:", {"members": "Runner init", "texts": "text"}),
        ("engine.deep.runner:init", {"attributes": "route"}),
    ],
)
def test_found(tree: SourceTree, place: str, wanted: dict[str, str]) -> None:
    assert lacks(tree, place, **wanted) == (0, [])


@pytest.mark.parametrize(
    ("place", "wanted", "missing"),
    [
        ("engine.gone:Runner", {"members": "call"}, ["Runner"]),
        ("engine.gone:", {}, ["engine.gone"]),
        ("engine.deep.runner:Gone", {}, ["Gone"]),
        ("engine.deep.runner:Runner.gone", {}, ["Runner.gone"]),
        ("engine.deep.runner:Runner.call", {"parameters": "self tokens"}, ["(self, tokens)"]),
        # A parameter after those that are given by position has to be there by name.
        ("engine.deep.runner:Runner.call", {"parameters": "self rows seed"}, ["(self, rows, seed)"]),
        ("engine.deep.runner:Runner.call", {"keywords": "options temperature"}, ["options", "temperature"]),
        # What an instance has is none of the class's.
        ("engine.deep.runner:Runner", {"members": "call own"}, ["own"]),
        ("engine.deep.runner:Runner", {"attributes": "set unset read deeper"}, ["unset", "read", "deeper"]),
        ("engine.deep.runner:init", {"attributes": "route never"}, ["never"]),
        ("engine.deep.runner:Runner", {"texts": "other"}, ["'other'"]),
    ],
)
def test_missing(tree: SourceTree, place: str, wanted: dict[str, str], missing: list[str]) -> None:
    assert lacks(tree, place, **wanted) == (0, missing)


def test_the_first_place_that_has_it_is_the_one(tree: SourceTree) -> None:
    assert lacks(tree, "engine.gone:Runner engine.deep.runner:Runner", members="call") == (1, [])
    assert lacks(tree, "engine:Exported engine.deep.runner:Exported") == (0, [])
    assert lacks(tree, "engine.gone:Runner engine.deep.runner:Runner", members="left right") == (1, ["left", "right"])
