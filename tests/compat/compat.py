"""`make compat`: looks in every minor version of vLLM for what our code relies on, and writes the tables.

Exits with 1 if a version lacks something that nothing replaces.
"""

from __future__ import annotations

import sys
import tomllib
from datetime import UTC, datetime

from engine_sources import REPOSITORY, fetch, newest_patches
from packaging.requirements import Requirement
from reliance_table import Table, publish
from source_tree import SourceTree


def main() -> int:
    table = Table.of({version: SourceTree(fetch(version)) for version in newest_patches(floor())})
    today = datetime.now(UTC)
    publish(table, f"{today.day} {today:%B %Y}")
    refused = {version: table.refused(version) for version in table.columns}
    for version, names in refused.items():
        print(f"vLLM {version}: {'lacks ' + '; '.join(names) if names else 'has all'}")
    return int(any(refused.values()))


def floor() -> str:
    """The oldest version that the package takes."""
    return next(one.version for one in requirement().specifier if one.operator == ">=")


def requirement() -> Requirement:
    """Of vLLM, as the package declares it."""
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [found] = [one for one in map(Requirement, extras["proxy"]) if one.name == "vllm"]
    return found


if __name__ == "__main__":
    sys.exit(main())
