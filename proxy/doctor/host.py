"""What `toploc doctor` looks at beside the engine: the host, the installed package, the model's files.

Nothing here imports torch or vLLM, which may be what is broken.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from toploc.errors import UnsupportedEngine
from toploc.scheme import TOPK

from .finding import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARED_MEMORY: Final = 10 * 16 * 2**20
"""Bytes of the ring between an engine and its workers: 10 chunks of VLLM_MQ_MAX_CHUNK_BYTES_MB, 16
(vllm/distributed/device_communicators/shm_broadcast.py). Docker gives a container 64 MiB unless told otherwise."""

WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def check_plugins(require: Callable[[], None]) -> Iterator[Finding]:
    """Our entry points are installed; the engine's check sees whether it loads them.

    Args:
        require: raises UnsupportedEngine where they are not.
    """
    try:
        require()
    except UnsupportedEngine as error:
        problem, _, remedy = str(error).removeprefix("toploc: ").rpartition("; ")
        yield Finding("plugins", Outcome.FAILED, problem, remedy)
    else:
        yield Finding("plugins", Outcome.PASSED, "our entry points are installed")


def check_port(host: str, port: int) -> Iterator[Finding]:
    """The server's address can be bound, as vLLM binds it but for SO_REUSEPORT, with which two servers would share."""
    where = f"{host or '*'}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            yield Finding(
                "port", Outcome.FAILED, f"{where} cannot be bound: {error}", "choose another --port or --host"
            )
        else:
            yield Finding("port", Outcome.PASSED, f"{where} is free")


def check_channel() -> Iterator[Finding]:
    """A socket can be made where the side channel's will be."""
    from ..channel.addresses import channel_directory

    try:
        with channel_directory() as directory, socket.socket(socket.AF_UNIX) as probe:
            probe.bind(f"{directory}/engine-0.sock")
    except OSError as error:
        yield Finding("channel", Outcome.FAILED, f"no socket below /tmp: {error}", "make /tmp writable for this user")
    else:
        yield Finding("channel", Outcome.PASSED, "the side channel has room below /tmp")


def check_shared_memory(path: str = "/dev/shm") -> Iterator[Finding]:  # noqa: S108
    """vLLM's processes pass steps and results through it where an engine has several workers."""
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("shared memory", Outcome.FAILED, f"{path} cannot be written to", "mount a tmpfs there")
        return
    free = shutil.disk_usage(path).free
    if free < SHARED_MEMORY:
        yield Finding(
            "shared memory",
            Outcome.WARNING,
            f"{free // 2**20} MiB are free in {path}, and an engine of several workers takes {SHARED_MEMORY // 2**20}",
            "docker run --ipc=host or --shm-size=1g",
        )
    else:
        yield Finding("shared memory", Outcome.PASSED, f"{free // 2**20} MiB are free in {path}")


def check_model(name: str) -> Iterator[Finding]:
    """Its files can be read, and a chunk of one row has enough elements for a proof."""
    path = Path(name)
    if not path.exists() and name.count("/") <= 1 and not name.startswith((".", "/")):
        yield Finding(
            "model",
            Outcome.WARNING,
            f"{name} is no directory here, so vLLM takes it for a name on the Hugging Face hub; nothing was looked up",
            "give the directory if there is one",
        )
        return
    try:
        config = orjson.loads((path / "config.json").read_bytes())
        files = [file for pattern in WEIGHTS for file in path.glob(pattern)]
        for file in files:
            with file.open("rb") as weights:
                weights.read(1)
    except OSError as error:
        yield Finding(
            "model", Outcome.FAILED, f"{error.filename}: {error.strerror}", "check the path and who may read it"
        )
        return
    except orjson.JSONDecodeError as error:
        yield Finding("model", Outcome.FAILED, f"{path / 'config.json'}: {error}", "copy the model's files again")
        return
    if not files:
        yield Finding("model", Outcome.FAILED, f"{path} has no weights", "copy the model's files again")
        return
    yield _hidden_size(config)


def _hidden_size(config: Any) -> Finding:
    size = _text_config(config).get("hidden_size")
    if not isinstance(size, int):
        return Finding(
            "model", Outcome.WARNING, "its config.json has no hidden_size to check", f"it has to be {TOPK} or more"
        )
    if size < TOPK:
        return Finding(
            "model",
            Outcome.FAILED,
            f"hidden size {size}: a proof of one token has {TOPK} points, one for each element",
            f"serve a model of hidden size {TOPK} or more",
        )
    return Finding("model", Outcome.PASSED, f"its files can be read, hidden size {size}")


def _text_config(config: Any) -> dict[str, Any]:
    """The language model's part, which models with other parts keep apart."""
    if not isinstance(config, dict):
        return {}
    nested = config.get("text_config") or config.get("llm_config")
    return nested if "hidden_size" not in config and isinstance(nested, dict) else config
