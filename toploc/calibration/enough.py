"""Whether a file has the answers that bounds can be taken from, found before any of them is computed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..errors import MalformedEvidence, ToplocError
from ..evidence import parse_evidence
from ..evidence.file import items
from ..scheme import CHUNK_SIZE
from .bounds import LEAST, ROWS, TooFewAnswers, group, span

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def require_enough(path: Path, progress: Callable[[], object] = lambda: None) -> tuple[int, int]:
    """The chunks and answers at `path`; `progress` is called after each line.

    Raises:
        TooFewAnswers: of some length there are fewer than `LEAST` chunks among every second answer, from which bounds
            are taken.
        ToplocError: naming the line that cannot be used.
    """
    fitted: Counter[int] = Counter()
    chunks = answers = 0
    with path.open("rb") as stream:
        for line, data in items(stream):
            try:
                evidence = parse_evidence(data)
            except MalformedEvidence as error:
                raise ToplocError(f"{path}:{line}: {error}") from None
            for answer in evidence.answers:
                tokens = len(answer.token_ids)
                rows = [min(CHUNK_SIZE, tokens - first) for first in range(0, tokens, CHUNK_SIZE)]
                if answers % 2 == 0:
                    fitted.update(group(count) for count in rows)
                chunks, answers = chunks + len(rows), answers + 1
            progress()
    if not answers:
        raise ToplocError(f"{path}: no answers with proofs")
    short = [f"{fitted[rows]} of {span(rows)}" for rows in ROWS if fitted[rows] < LEAST]
    if short:
        raise TooFewAnswers(
            f"{path}: every second answer is for bounds, and of each length of chunk {LEAST} are needed; there are "
            f"{', '.join(short)}: give more honest answers, of more lengths (`toploc generate --vary_length`)"
        )
    return chunks, answers
