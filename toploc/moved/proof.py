"""`toploc.proofs.format`, under its name of 0.1."""

from toploc.proofs.format import Proof, decode_proof, encode_chunks, encode_points

__all__ = ["Proof", "decode_proof", "encode_chunks", "encode_points"]
