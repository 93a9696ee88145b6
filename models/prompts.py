"""Prompts from text that people wrote: paragraphs of Python's own reference, which Python ships.

    python -m models.prompts 1000 > prompts.jsonl

As many as there are paragraphs times tasks, about 2,500. Another version of Python has other paragraphs.
"""

from __future__ import annotations

import argparse
import json
import re
from functools import cache
from pydoc_data.topics import topics
from random import Random
from typing import Final

TASKS: Final = (
    "Explain this to somebody who has never programmed:\n\n{}",
    "Say this in one sentence:\n\n{}",
    "Write three questions that this text answers:\n\n{}",
    "Go on with this text:\n\n{}",
)
SHORTEST: Final = 200
"""Characters of a paragraph: shorter ones are headings and lines of examples."""


@cache
def prompts() -> tuple[str, ...]:
    """Every paragraph under every task, in an order that is the same at each call."""
    paragraphs = {text.strip() for topic in topics.values() for text in re.split(r"\n\s*\n", topic)}
    chosen = sorted(text for text in paragraphs if len(text) >= SHORTEST)
    made = [task.format(text) for text in chosen for task in TASKS]
    Random(1).shuffle(made)
    return tuple(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", metavar="COUNT", type=int)
    for prompt in prompts()[: parser.parse_args().count]:
        print(json.dumps({"prompt": prompt}))


if __name__ == "__main__":
    main()
