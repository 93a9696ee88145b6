"""An engine's checks in a process of their own: a broken pair of torch and engine may end it, and checks of adapters
wrap the engine's classes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import orjson

from toploc.errors import ToplocError
from toploc.scheme import TOPK

from .finding import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Check = Callable[[], Finding]

SECONDS: Final = 300.0
"""For imports and compilation, on a busy machine with cold disks."""

MARK: Final = "toploc doctor: "


def probe_apart(
    engine: str, module: str, environment: Mapping[str, str], python: str = sys.executable
) -> Iterator[Finding]:
    """Runs the `probe` of a module of this folder, with more variables.

    Args:
        engine: how it is called.
    """
    program = f"from toploc_proxy.doctor.{module} import probe; probe()"
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", program],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"importing {engine} took more than {SECONDS:g} s"
        yield Finding("engine", Outcome.FAILED, problem, "look at disk and memory")
        return
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found = orjson.loads(line.removeprefix(MARK))
            yield Finding(found["check"], Outcome(found["outcome"]), found["message"], found["remedy"])
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding(
            "engine",
            Outcome.FAILED,
            f"the process that imports {engine} ended with status {done.returncode}: {last[:500]}",
            f"install torch and {engine} as a pair again; docs/operations.md has versions",
        )


def tell(remedies: Mapping[Check, str], first: Collection[Check]) -> None:
    """Prints a line for each finding; in a process of its own. After a failure of one of the `first` there is no use in
    the others."""
    for check in remedies:
        finding = _attempt(check, remedies[check])
        print(MARK + orjson.dumps(finding).decode(), flush=True)
        if finding.outcome is Outcome.FAILED and check in first:
            return


def _attempt(check: Check, remedy: str) -> Finding:
    try:
        return check()
    except ToplocError as error:
        # Says itself what to do.
        return Finding(check.__name__.strip("_"), Outcome.FAILED, str(error).removeprefix("toploc: "))
    except Exception as error:
        problem = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:500]
        return Finding(check.__name__.strip("_"), Outcome.FAILED, problem, remedy)


def torch() -> Finding:
    import torch

    return Finding("torch", Outcome.PASSED, str(torch.__version__))


def kernels() -> Finding:
    """Compiles and runs the encoder, and so finds whether numba may write its cache."""
    import numpy as np

    from toploc.proofs.format import decode_proof, encode_points

    points = np.arange(TOPK)
    decode_proof(encode_points(points, points.astype(np.uint16)))
    return Finding("kernels", Outcome.PASSED, "the encoder compiles, and what it compiled is kept")


WRITABLE: Final = "let NUMBA_CACHE_DIR name a directory that this user can write to"
"""What to do where `kernels` fails."""
