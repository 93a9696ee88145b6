"""A digest of a model's weights that takes bounded reads: `toploc weights-digest FOLDER`.

It names weights; it proves nothing about them. `docs/protocol.md` defines it, so that others can compute it too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ToplocError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHOD: Final = "toploc-weights-1"
"""How it is computed. Another way has another name."""

BLOCKS: Final = 1024
BLOCK_BYTES: Final = 4096
"""What is read beside the headers: 4 MiB of any model."""

MAX_HEADER: Final = 100 * 10**6
"""Bytes of a file's header, as the format itself has it. Stops files that fill the memory."""

INDEX: Final = "model.safetensors.index.json"
ALONE: Final = "model.safetensors"


class UnreadableWeights(ToplocError):
    """A folder whose weights have no digest."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file: `size` bytes from `offset` on."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int


def weights_digest(folder: str | Path) -> str:
    """The digest of the safetensors in a model's folder, in hexadecimal. However they are divided into files, it is the
    same.

    1. The files are those of `model.safetensors.index.json`; else `model.safetensors`; else all `*.safetensors`.
    2. H is the SHA-256 over a line for each tensor, in order of their names: JSON `[name, dtype, [shape]]`
       in ASCII without spaces.
    3. Put the tensors' bytes end to end in that order. Block i begins at byte s mod the length, where s is the first 8
       bytes of the SHA-256 over H and i (4 bytes), and ends after 4,096 bytes or with its tensor. Numbers are
       little-endian.
    4. The digest is the SHA-256 over `toploc-weights-1`, H, and blocks 0 to 1,023.

    Raises:
        UnreadableWeights: there are none, or they are not as the format has them.
    """
    tensors = sorted((t for path in _files(Path(folder)) for t in _tensors(path)), key=lambda tensor: tensor.name)  # 1
    if not any(tensor.size for tensor in tensors):
        raise UnreadableWeights(f"{folder}: the files have no tensors")
    for one, other in pairwise(tensors):
        if one.name == other.name:
            raise UnreadableWeights(f"{other.path.name}: tensor {one.name} is in {one.path.name} too")
    lines = [json.dumps([t.name, t.dtype, [*t.shape]], separators=(",", ":")) + "\n" for t in tensors]
    listing = hashlib.sha256("".join(lines).encode()).digest()  # 2
    digest = hashlib.sha256(METHOD.encode() + listing)  # 4
    for block in _blocks(listing, tensors):
        digest.update(block)
    return digest.hexdigest()


def _blocks(listing: bytes, tensors: Sequence[Tensor]) -> Iterator[bytes]:
    ends = [*accumulate(tensor.size for tensor in tensors)]
    opened: dict[Path, int] = {}
    try:
        for number in range(BLOCKS):  # 3
            drawn = hashlib.sha256(listing + number.to_bytes(4, "little")).digest()
            at = int.from_bytes(drawn[:8], "little") % ends[-1]
            place = bisect_right(ends, at)
            tensor, left = tensors[place], ends[place] - at
            if tensor.path not in opened:
                opened[tensor.path] = os.open(tensor.path, os.O_RDONLY)
            yield os.pread(opened[tensor.path], min(BLOCK_BYTES, left), tensor.offset + tensor.size - left)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    try:
        if (folder / INDEX).exists():
            names = sorted({*json.loads((folder / INDEX).read_bytes())["weight_map"].values()})
            if any(Path(name).name != name for name in names):
                raise UnreadableWeights(f"{folder / INDEX}: a file of another folder")
            return [folder / name for name in names]
        if (folder / ALONE).exists():
            return [folder / ALONE]
        found = sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableWeights(f"{folder}: the list of files cannot be read: {type(error).__name__}") from None
    if not found:
        raise UnreadableWeights(f"{folder}: there are no *.safetensors; other formats have no digest")
    return found


def _tensors(path: Path) -> list[Tensor]:
    """From the header: its length in 8 bytes, then JSON (https://github.com/huggingface/safetensors, "Format")."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MAX_HEADER:
                raise UnreadableWeights(f"{path.name}: no safetensors")
            header: dict[str, Any] = json.loads(file.read(length))
            data = path.stat().st_size - 8 - length
        tensors = []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = map(int, entry["data_offsets"])
            if not 0 <= begin <= end <= data:
                raise UnreadableWeights(f"{path.name}: tensor {name} lies outside of the file")
            shape = tuple(int(size) for size in entry["shape"])
            tensors.append(Tensor(name, str(entry["dtype"]), shape, path, 8 + length + begin, end - begin))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableWeights(f"{path.name}: not readable as safetensors: {type(error).__name__}") from None
    return tensors


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "toploc weights-digest",
        description="The digest of a model's weights that GET /v1/toploc and receipts name (docs/protocol.md).",
    )
    parser.add_argument("folder", metavar="FOLDER", help="of the model, with its *.safetensors")
    print(weights_digest(parser.parse_args(arguments).folder))
