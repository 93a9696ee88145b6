"""`toploc.proofs.builder`, under its name of 0.1."""

from toploc.proofs.builder import ProofBuilder

__all__ = ["ProofBuilder"]
