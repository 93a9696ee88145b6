"""What each version of SGLang lacks of what our code uses, by its sources.

    python tests/compat/sglang_versions.py

Exits with 1 if one lacks something; `make compat` runs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from engine_sources import fetch
from source_tree import SourceTree
from toploc_proxy.engines.sglang.reliances import API_SERVER, COMMAND_LINE, NEWEST, OLDEST, SCHEDULER

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTED: Final = (*COMMAND_LINE, *API_SERVER, *SCHEDULER)


def versions() -> Iterator[str]:
    """All between the oldest and the newest, which differ in their last number."""
    series, first = OLDEST.rsplit(".", 1)
    for patch in range(int(first), int(NEWEST.rsplit(".", 1)[1]) + 1):
        yield f"{series}.{patch}"


def main() -> int:
    lacking = 0
    for version in versions():
        tree = SourceTree(fetch(version, "sglang"))
        missing = [f"{one.name}: {', '.join(found.names)}" for one in LISTED if (found := tree.lacks(one)).names]
        print(f"{version}: {'; '.join(missing) or f'all {len(LISTED)} are there'}")
        lacking += len(missing)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
