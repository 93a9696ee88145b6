"""The folder of an experiment: what `toploc generate` was asked for, and the answers it got.

As in the original's scripts one folder holds any number of models: each has a folder of its own in it, named after it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toploc.errors import ToplocError
from toploc.evidence.file import EvidenceFile, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..offline import LLM

MANIFEST: Final = "manifest.json"

EVIDENCE: Final = "evidence.jsonl"

SAMPLE: Final = "sample"
"""Key of a request's `metadata` with the number of its prompt in the data set, from 0."""


class Manifest(BaseModel):
    """What decides the requests and the server. How many samples is no part of it: they are the data set's first."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    version: int = Field(default=1, ge=1, le=1)
    model_name: str
    dataset_name: str
    dtype: str
    tp: int = Field(ge=1)
    max_decode_tokens: int = Field(ge=1)
    vary_length: bool
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    stop_at_eos: bool
    route: str
    weights: str | None
    base_url: str | None
    serve: tuple[str, ...] = ()
    """Further options of the server."""


class Experiment:
    """The folder of `model_name` in `save_dir`."""

    def __init__(self, save_dir: Path, model_name: str) -> None:
        self.path = save_dir / file_name(model_name)
        self.evidence = EvidenceFile(self.path / EVIDENCE)

    def begin(self, manifest: Manifest) -> None:
        """Makes the folder, or goes on with one of the same manifest. Raises ToplocError for another's."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / MANIFEST).exists():
                if self.evidence.path.exists():
                    raise ToplocError(f"{self.evidence.path} is there without a {MANIFEST}; choose another --save_dir")
                made = self.path / f"{MANIFEST}.new"
                made.write_text(json.dumps(manifest.model_dump(), ensure_ascii=False, indent=1) + "\n", "utf-8")
                made.replace(self.path / MANIFEST)
        except OSError as error:
            raise ToplocError(f"{error.filename or self.path}: {error.strerror}") from None
        self.expect(manifest.model_dump())

    def manifest(self) -> Manifest:
        """Raises ToplocError where there is none."""
        path = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ToplocError(f"{path}: missing; `toploc generate` makes it") from None
        except OSError as error:
            raise ToplocError(f"{path}: {error.strerror}") from None
        except ValidationError:
            raise ToplocError(f"{path}: not the manifest of an experiment") from None

    def expect(self, flags: dict[str, Any]) -> None:
        """Raises ToplocError naming the first flag that the folder was made with another value of."""
        found = self.manifest().model_dump()
        for name, value in flags.items():
            if found[name] != value:
                was, now = (" ".join(v) if isinstance(v, tuple) else v for v in (found[name], value))
                flag = "options after --" if name == "serve" else f"--{name}"
                raise ToplocError(
                    f"{self.path}: was made with {flag} {was}, this call has {now}; choose another --save_dir"
                )

    def answers(self) -> Iterator[tuple[int, bytes]]:
        """The number of each sample and its evidence, each once, in the order of the file.

        A torn line, or one that says no sample, is passed over: `generate` asks for what is missing.
        """
        seen = set()
        for line in read_lines(self.evidence.path) if self.evidence.path.exists() else ():
            try:
                sample = int(json.loads(line.data or b"")["request"]["metadata"][SAMPLE])
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
            if line.data is not None and sample not in seen:
                seen.add(sample)
                yield sample, line.data


def file_name(model_name: str) -> str:
    """A model's name as part of a file's, spelt as by the original's scripts."""
    name = model_name.strip("/").replace("/", "--")
    if not name or name.startswith("."):
        raise ToplocError(f"{model_name!r}: expected the name of a model or the path of its folder, without ./ or ../")
    return name


def load_llm(weights: str, name: str, *, dtype: str, tp: int, options: Sequence[str]) -> LLM:
    """An engine of this process's own that has a model under a name, until the end of a `with` statement."""
    # Seconds of imports, which a running server needs none of.
    from ..engines.vllm.offline.answers import llm_by_flags

    print(f"loading {weights}; it takes a minute or more", file=sys.stderr)
    if "--kv-cache-memory-bytes" not in options:
        # In GiB; without it vLLM on a CPU takes most of the memory. It goes before the flag.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    flags = ["--served-model-name", name, "--dtype", dtype, "--tensor-parallel-size", str(tp)]
    return llm_by_flags(weights, [*flags, *options])
