"""A stored request and response: `parse.py` reads them, `evidence.py` is what they become, `file.py` keeps them."""

from .evidence import Answer, Evidence
from .parse import parse_evidence, read_evidence
from .strict_json import MAX_BYTES

__all__ = ["MAX_BYTES", "Answer", "Evidence", "parse_evidence", "read_evidence"]
