"""Prompts of a data set: of ours, of a file, or of the Hugging Face hub. Needs neither torch nor vLLM.

A row is a text, or an object with `messages` (role and content), `conversations` (from and value), `data` (texts, the
user's first, as in stingning/ultrachat), `prompt`, `question`, `instruction` or `text`.
"""

from __future__ import annotations

import json
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Iterator

Messages = list[dict[str, str]]

SUFFIXES: Final = (".jsonl", ".json", ".parquet")
TEXTS: Final = ("prompt", "question", "instruction", "text")
ROLES: Final = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
MAX_LINE: Final = 16 * 2**20
"""Bytes of a line. Stops a file that is one endless line from filling the memory."""
MAX_JSON: Final = 2**30
"""Bytes of a JSON file, which is read whole: JSONL and Parquet are read row by row."""
INSTALL: Final = "pip install 'toploc-proxy[experiments]'"
INSTEAD: Final = "give --dataset_name a file instead: .jsonl, .json or .parquet, with `messages` or `prompt` in a row"


def read_prompts(name: str, count: int) -> list[Messages]:
    """The first `count` prompts of the data set `name`, each up to the user's first message.

    1. One of ours, in configs/prompts.
    2. A local file, by its ending.
    3. A data set of the hub, its split `train`, as far as it is needed.

    Raises ToplocError for what cannot be read or has fewer rows, with file and row.
    """
    ours = resources.files("toploc.configs") / "prompts" / f"{name}.jsonl"
    if name.replace("-", "").isalnum() and ours.is_file():  # 1
        rows: Iterator[tuple[int, Any]] = enumerate(map(json.loads, ours.read_text("utf-8").splitlines()), 1)
    elif name.endswith(SUFFIXES) or Path(name).exists():  # 2
        rows = _of_file(Path(name))
    else:
        rows = _of_hub(name)  # 3
    found = [_messages(row, f"{name}: row {number}") for number, row in islice(rows, count)]
    if len(found) < count:
        raise ToplocError(f"{name}: has {len(found):,} prompts, --n_samples asks for {count:,}")
    return found


def _of_file(path: Path) -> Iterator[tuple[int, Any]]:
    readers = {".jsonl": _of_jsonl, ".json": _of_json, ".parquet": _of_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise ToplocError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise ToplocError(f"{path}: {error.strerror or error}") from None


def _of_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise ToplocError(f"{path}: row {number}: longer than {MAX_LINE:,} bytes")
            if line.strip():
                yield number, _parsed(line, f"{path}: row {number}")


def _of_json(path: Path) -> Iterator[tuple[int, Any]]:
    if path.stat().st_size > MAX_JSON:
        raise ToplocError(f"{path}: more than {MAX_JSON:,} bytes; write it as JSONL")
    rows = _parsed(path.read_bytes(), str(path))
    if not isinstance(rows, list):
        raise ToplocError(f"{path}: expected a list of rows")
    yield from enumerate(rows, 1)


def _of_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    parquet = import_pyarrow("pyarrow.parquet", str(path))
    arrow = import_pyarrow("pyarrow", str(path))
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(100):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except arrow.ArrowException as error:
        raise ToplocError(f"{path}: no Parquet file: {_line(error)}") from None


def _of_hub(name: str) -> Iterator[tuple[int, Any]]:
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise ToplocError(
            f"{name}: no such file, and a data set of the hub needs the package datasets: {INSTALL}; or {INSTEAD}"
        ) from None
    try:
        # Streamed: of stingning/ultrachat, gigabytes, four rows are wanted.
        yield from enumerate(datasets.load_dataset(name, split="train", streaming=True), 1)
    except Exception as error:
        # The hub's client raises what its parts do: of HTTP, of files, of its own.
        raise ToplocError(
            f"{name}: cannot be read from the Hugging Face hub ({type(error).__name__}: {_line(error)}); {INSTEAD}"
        ) from None


def import_pyarrow(name: str, what: str) -> Any:
    """A module of pyarrow, which is optional. Raises ToplocError that says how to get it."""
    try:
        return import_module(name)
    except ImportError:
        raise ToplocError(f"{what}: Parquet needs the package pyarrow: {INSTALL}") from None


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ToplocError(f"{place}: not JSON: {_line(error)}") from None


def _messages(row: Any, place: str) -> Messages:
    """A row's messages up to the user's first. Raises ToplocError for a row that has none."""
    given = row
    if isinstance(row, dict):
        keys = ("messages", "conversations", "data", *TEXTS)
        given = next((row[key] for key in keys if row.get(key) is not None), None)
        if given is None:
            raise ToplocError(f"{place}: expected one of {', '.join(keys)}, got {', '.join(sorted(map(str, row)))}")
    if isinstance(given, str):
        given = [given]
    kept: Messages = []
    for turn in given if isinstance(given, list) else []:
        message = _message(turn, place)
        if message["role"] != "assistant" or kept:
            kept.append(message)
        if message["role"] == "user":
            return kept
    raise ToplocError(f"{place}: has no message of a user")


def _message(turn: Any, place: str) -> dict[str, str]:
    role: Any = "user"
    content = turn
    if isinstance(turn, dict):
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise ToplocError(f"{place}: a message with role {str(role)[:40]!r}; known are {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise ToplocError(f"{place}: a message without text")
    return {"role": ROLES[role], "content": content}


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
