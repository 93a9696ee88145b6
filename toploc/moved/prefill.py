"""`toploc.verifier.prefill`, under its name of 0.1."""

from toploc.verifier.prefill import TransformersPrefill

__all__ = ["TransformersPrefill"]
