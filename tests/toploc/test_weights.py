"""The digest of a model's weights: what it depends on, and what has none."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from toploc import cli
from toploc.weights import BLOCK_BYTES, BLOCKS, UnreadableWeights, weights_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
RANDOM = np.random.default_rng(0)
TENSORS = {
    "a.weight": RANDOM.standard_normal((300, 400)).astype(np.float32),
    "b": RANDOM.standard_normal(7).astype(np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "last": RANDOM.integers(0, 99, (60, 50)),
}


def saved(folder: Path, *shards: Mapping[str, np.ndarray], index: bool = False) -> Path:
    folder.mkdir()
    names = (
        ["model.safetensors"] if len(shards) == 1 else [f"part-{number}.safetensors" for number in range(len(shards))]
    )
    for name, tensors in zip(names, shards, strict=True):
        save_file(dict(tensors), folder / name)
    if index:
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def test_the_document_defines_it(tmp_path: Path) -> None:
    """By the steps of docs/protocol.md, with the whole of the bytes at hand."""
    arrays = sorted(TENSORS.items())
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64"}
    listing = hashlib.sha256()
    for name, array in arrays:
        shape = ",".join(map(str, array.shape))
        listing.update(f'["{name}","{kinds[str(array.dtype)]}",[{shape}]]\n'.encode())
    h = listing.digest()
    whole = b"".join(array.tobytes() for _, array in arrays)
    ends = np.cumsum([array.nbytes for _, array in arrays]).tolist()
    digest = hashlib.sha256(b"toploc-weights-1" + h)
    for i in range(1024):
        at = int.from_bytes(hashlib.sha256(h + i.to_bytes(4, "little")).digest()[:8], "little") % len(whole)
        digest.update(whole[at : min(at + 4096, next(end for end in ends if end > at))])
    assert weights_digest(saved(tmp_path / "model", TENSORS)) == digest.hexdigest()


def test_how_tensors_are_divided_does_not_matter(tmp_path: Path) -> None:
    names = [*TENSORS]
    shards = [{name: TENSORS[name] for name in part} for part in (names[2:], names[:2])]
    whole = weights_digest(saved(tmp_path / "whole", TENSORS))
    assert weights_digest(saved(tmp_path / "listed", *shards, index=True)) == whole
    assert weights_digest(saved(tmp_path / "unlisted", *shards)) == whole


def test_files_that_the_index_does_not_name_are_not_read(tmp_path: Path) -> None:
    names = [*TENSORS]
    shards = [{name: TENSORS[name] for name in part} for part in (names[2:], names[:2])]
    folder = saved(tmp_path / "model", *shards, index=True)
    save_file(TENSORS, folder / "consolidated.safetensors")
    assert weights_digest(folder) == weights_digest(saved(tmp_path / "whole", TENSORS))


@pytest.mark.parametrize("change", ["value", "name", "dtype", "shape", "more"])
def test_other_weights_have_another_digest(tmp_path: Path, change: str) -> None:
    other = {name: array.copy() for name, array in TENSORS.items()}
    match change:
        case "value":
            other["a.weight"] *= 1.01
        case "name":
            other["c"] = other.pop("b")
        case "dtype":
            other["b"] = other["b"].astype(np.float32)
        case "shape":
            other["last"] = other["last"].reshape(50, 60)
        case "more":
            other["z"] = np.zeros(0, np.float32)
    digests = {weights_digest(saved(tmp_path / name, tensors)) for name, tensors in {"a": TENSORS, "b": other}.items()}
    assert len(digests) == 2


def test_a_fine_tuned_copy_has_another(tmp_path: Path) -> None:
    data = bytearray((MODEL / "model.safetensors").read_bytes())
    for place in range(len(data) // 2, len(data), 64):  # one byte of 64, in half of the file
        data[place] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    assert weights_digest(tmp_path) != weights_digest(MODEL)


def test_reads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of a terabyte."""
    size = 2**40
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + size)
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda *a: read.append(a[1]) or pread(*a))
    assert len(weights_digest(tmp_path)) == 64
    assert len(read) == BLOCKS
    assert sum(read) <= BLOCKS * BLOCK_BYTES


def _header(value: Any, data: bytes = b"") -> bytes:
    header = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(header).to_bytes(8, "little") + header + data


ENTRY = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
UNREADABLE = {
    "empty": b"",
    "short": b"\x01\x00",
    "long header": (2**60).to_bytes(8, "little"),
    "no JSON": _header(b"not json"),
    "no object": _header([1]),
    "deep": _header(b'{"a":' * 100_000),
    "no tensors": _header({"__metadata__": {}}),
    "no offsets": _header({"w": {"dtype": "U8", "shape": [4]}}, b"1234"),
    "beyond the file": _header({"w": ENTRY}, b"123"),
    "backwards": _header({"w": {**ENTRY, "data_offsets": [4, 0]}}, b"1234"),
    "negative": _header({"w": {**ENTRY, "data_offsets": [-4, 0]}}, b"1234"),
    "text for numbers": _header({"w": {**ENTRY, "shape": ["x"]}}, b"1234"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_are_none(tmp_path: Path, case: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(UNREADABLE[case])
    with pytest.raises(UnreadableWeights):
        weights_digest(tmp_path)


@pytest.mark.parametrize(
    "index", ["no json", "[]", '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": "gone.safetensors"}}', "{}"]
)
def test_lists_that_are_none(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UnreadableWeights):
        weights_digest(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match="is in part-0"):
        weights_digest(saved(tmp_path / "model", TENSORS, TENSORS))


def test_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("sys.argv", ["toploc", "weights-digest", str(tmp_path)])
    assert cli.main() == 2
    assert "there are no *.safetensors; other formats have no digest" in capsys.readouterr().err


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["toploc", "weights-digest", str(MODEL)])
    assert cli.main() == 0
    assert capsys.readouterr().out == weights_digest(MODEL) + "\n"
