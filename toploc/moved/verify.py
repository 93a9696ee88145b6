"""`toploc.proofs.verdict`, under its name of 0.1."""

from toploc.proofs.verdict import ChunkVerdict, Verdict, verify_activations, verify_chunks, verify_points

__all__ = ["ChunkVerdict", "Verdict", "verify_activations", "verify_chunks", "verify_points"]
