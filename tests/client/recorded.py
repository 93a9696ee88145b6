"""Recorded answers of the bundled model and of others, by name."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = {
    path.stem: json.dumps(json.loads(path.read_bytes()))
    for path in sorted((ROOT / "tests" / "toploc" / "evidence").glob("*.json"))
}


def file_of(path: Path, *names: str, end: str = "") -> Path:
    path.write_text("".join(RECORDED[name] + "\n" for name in names) + end, "utf-8")
    return path
