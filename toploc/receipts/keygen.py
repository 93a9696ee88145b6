"""`toploc keygen`: a key that a provider signs its answers with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION: Final = """\
Makes an Ed25519 key for `toploc serve --toploc-signing-key FILE`, in a new file that its user alone can read.
Prints the public half as JSON: what auditors give to `toploc verify --trusted-keys`.
"""
"""What `--help` says."""


def main(arguments: Sequence[str]) -> None:
    """Raises InvalidKey, if the file is there already or cannot be written."""
    parser = argparse.ArgumentParser(
        "toploc keygen", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where the private key goes; never overwritten")
    key = SigningKey.create(parser.parse_args(arguments).file)
    print(key.public.model_dump_json(exclude_none=True))
