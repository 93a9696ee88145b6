"""A verifier of the bundled model, and recorded answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from toploc.report import Check, Report
from toploc.thresholds.bounds import Thresholds
from toploc.verifier.prefill import TransformersPrefill
from toploc.verifier.transformers import TransformersVerifier

MODEL = Path(__file__).parents[3] / "models" / "toploc-mini"
RECORDED = Path(__file__).parents[1] / "evidence"

Verify = Callable[[Any], Report]


@pytest.fixture(scope="session")
def prefill() -> Iterator[TransformersPrefill]:
    """On one thread: the model is so small that others only get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TransformersPrefill(MODEL)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def verify(prefill: TransformersPrefill) -> Verify:
    verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=Thresholds.load("toploc-mini"))
    return lambda evidence: verifier.verify(json.dumps(evidence))


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], dict[str, Any]]:
    loaded = {path.stem: json.loads(path.read_text("utf-8")) for path in RECORDED.glob("*.json")}
    return lambda name: copy.deepcopy(loaded[name])


@pytest.fixture(scope="session")
def find() -> Callable[..., Check]:
    """The check of a name, of choice 0 or of that which is given."""

    def found(report: Report, name: str, choice: int = 0) -> Check:
        [check] = [c for c in report.checks if c.name == name and c.choice in (None, choice)]
        return check

    return found
