"""Writes the synchronous twins of asynchronous modules, or with `--check` says where one differs from what it would be.

    python scripts/synchronous.py [--check]

The asynchronous module is the source. What has another form without `await` is in modules of both sides that are
written by hand (`BY_HAND`), as httpcore does it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

BY_HAND: Final = ("waiting.py",)

RULES: Final = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\basync (def|for|with)\b", r"\1"),
        (r"\bawait ", ""),
        (r"\b(_?)Async(?=[A-Z])", r"\1"),
        (r"\bFetchAsync\b", "Fetch"),
        (r"\b(\w+)_async\b", r"\1"),
        (r"\b__a(enter|exit)__\b", r"__\1__"),
        (r"\ba(close|read|iter_bytes|iter_raw)\b", r"\1"),
        (r"\basyncio\.sleep\b", "time.sleep"),
        (r"\bimport asyncio\b", "import time"),
        (r"\bof tasks\b", "of threads"),
        (r" with `await`; so is what `finish` gives", " without `await`"),
    )
]


def twins() -> list[tuple[Path, Path]]:
    """Each source, and the module that is made from it."""
    client = ROOT / "client"
    made = [
        (path, client / "synchronous" / path.name)
        for path in sorted((client / "asynchronous").glob("*.py"))
        if path.name not in BY_HAND
    ]
    verifier = ROOT / "toploc" / "verifier"
    return [*made, (verifier / "asynchronous.py", verifier / "synchronous.py")]


def synchronous(source: Path, target: Path) -> str:
    text = source.read_text("utf-8")
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    if text:
        text = f"# Made from {source.relative_to(ROOT).as_posix()} by scripts/synchronous.py: change that one.\n{text}"
    for command in (["check", "--fix-only", "--quiet", "--select", "I"], ["format", "--quiet"]):
        call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(target), "-"]
        text = subprocess.run(call, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where something would change")
    check = parser.parse_args().check
    stale = []
    for source, target in twins():
        text = synchronous(source, target)
        if not target.exists() or target.read_text("utf-8") != text:
            stale.append(target.relative_to(ROOT).as_posix())
            if not check:
                target.write_text(text, "utf-8")
    for name in stale:
        print(f"{name}: {'differs from its source; run make twins' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
