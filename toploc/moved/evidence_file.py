"""`toploc.evidence.file`, under its name of 0.1."""

from toploc.evidence.file import EvidenceFile, Line, read_lines
from toploc.evidence.parquet import from_parquet, to_parquet

__all__ = ["EvidenceFile", "Line", "from_parquet", "read_lines", "to_parquet"]
