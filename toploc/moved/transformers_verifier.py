"""`toploc.verifier.transformers`, under its name of 0.1."""

from toploc.verifier.transformers import TransformersVerifier

__all__ = ["TransformersVerifier"]
