"""Proofs that a language model's answer came from the weights it is said to come from (arXiv 2501.16007).

Start reading at `proofs/` (format, field, verdict), then `evidence/`, `checks/` and `verifier/judge.py`. `ProofBuilder`
makes proofs, `verify_activations` judges them; `poly.py` has the original library's functions. Names are imported on
first use: `import toploc` and `toploc.protocol` need neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .errors import InvalidActivations, InvalidThresholds, MalformedProof, ToplocError
    from .poly import (
        ProofPoly,
        VerificationResult,
        build_proofs,
        build_proofs_base64,
        build_proofs_bytes,
        verify_proofs,
        verify_proofs_base64,
        verify_proofs_bytes,
    )
    from .proofs.builder import ProofBuilder
    from .proofs.format import Proof, decode_proof, encode_chunks, encode_points
    from .proofs.verdict import ChunkVerdict, Verdict, verify_activations, verify_chunks, verify_points
    from .thresholds.bounds import Bounds, Thresholds
    from .utils import sha256sum

__all__ = [
    "Bounds",
    "ChunkVerdict",
    "InvalidActivations",
    "InvalidThresholds",
    "MalformedProof",
    "Proof",
    "ProofBuilder",
    "ProofPoly",
    "Thresholds",
    "ToplocError",
    "Verdict",
    "VerificationResult",
    "build_proofs",
    "build_proofs_base64",
    "build_proofs_bytes",
    "decode_proof",
    "encode_chunks",
    "encode_points",
    "sha256sum",
    "verify_activations",
    "verify_chunks",
    "verify_points",
    "verify_proofs",
    "verify_proofs_base64",
    "verify_proofs_bytes",
]

# Modules that moved are still found under their old names.
__path__.append(str(Path(__file__).with_name("moved")))

_MODULES: Final = (
    "errors",
    "utils",
    "thresholds.bounds",
    "proofs.format",
    "proofs.verdict",
    "proofs.builder",
    "poly",
)
"""Where the names are looked for: the cheapest to import first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            value = getattr(import_module(f".{module}", __name__), name, None)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
