"""Without the package for Parquet, who needs it is told which it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from toploc_client.audit.arrow import arrow

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("instead", "end"), [("", "[experiments]'"), ("give --verdicts jsonl", ", or give --verdicts jsonl")]
)
def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: str, end: str) -> None:
    assert arrow(tmp_path)[1].ParquetFile
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ToplocError, match="needs the package pyarrow") as caught:
        arrow(tmp_path / "rows.parquet", instead)
    assert str(caught.value).startswith(f"{tmp_path}/rows.parquet: ")
    assert str(caught.value).endswith(end)
