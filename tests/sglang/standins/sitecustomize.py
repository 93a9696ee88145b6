"""Lets torchvision be imported beside a CPU build of torch.

Its wheel is for CUDA, so its compiled operators do not load, and its import fails where it gives them fakes. SGLang
imports it for images alone. Python imports this file in every process that has its folder on the path.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DefineOperators(MetaPathFinder):
    """Finds nothing; before the first import of torchvision it declares what that import expects."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                self.library.define(operator + SIGNATURE)
            # The declarations go with the object.
            torch._toploc_torchvision = self.library  # type: ignore[attr-defined]


sys.meta_path.insert(0, DefineOperators())
