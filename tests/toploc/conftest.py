"""Vectors of the original library: golden/cases.json and arrays.npz, see golden/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent / "golden"
TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def from_patterns(patterns: np.ndarray, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(patterns).view(np.int16)).view(dtype)


@dataclass
class Golden:
    build: dict[str, dict[str, Any]]
    verify: dict[str, dict[str, Any]]
    poly: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]

    def activations(self, case: dict[str, Any]) -> torch.Tensor | list[torch.Tensor]:
        """The input of a build or verify case, in the form that the original was called with."""
        patterns = self.arrays[case["array"]]
        if case.get("delta_array"):
            patterns = (patterns.astype(np.int32) + self.arrays[case["delta_array"]]).astype(np.uint16)
        if case.get("transform") == "reverse_flat":
            patterns = patterns.reshape(-1)[::-1].reshape(patterns.shape)
        dtype = TORCH_DTYPES[case["dtype"]]
        rows = from_patterns(patterns, dtype)
        if case["prefill_array"]:
            return [from_patterns(self.arrays[case["prefill_array"]], dtype), *rows]
        return list(rows) if case.get("input_form") == "list" else rows

    def proofs(self, case: dict[str, Any]) -> list[bytes]:
        if case["proofs_hex"] is not None:
            return [bytes.fromhex(proof) for proof in case["proofs_hex"]]
        return [bytes.fromhex(proof["hex"]) for proof in self.build[case["proofs_of"]]["proofs"]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    cases = json.loads((FOLDER / "cases.json").read_text("utf-8"))
    with np.load(FOLDER / "arrays.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    return Golden(
        build={case["name"]: case for case in cases["build"]},
        verify={case["name"]: case for case in cases["verify"]},
        poly=cases["poly"],
        arrays=arrays,
    )
