"""What documents name is there: files, folders, and the pages they link to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/*/README.md", "models/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # which tells of what was
)
TREES = "toploc|proxy|client|gateway|tests|benchmarks|models|configs|examples|docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_is_named_is_there(document: Path) -> None:
    text = (ROOT / document).read_text("utf-8")
    named = {name.split("::")[0] for name in re.findall(rf"`((?:{TREES})/[\w./*-]+(?:::\w+)?)`", text)}
    missing = {name for name in named if not list(ROOT.glob(name.rstrip("/")))}
    links = {link for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if "://" not in link}
    missing |= {link for link in links if not (ROOT / document.parent / link).exists()}
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_to_headings_lead_there(document: Path) -> None:
    for page, heading in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", (ROOT / document).read_text("utf-8")):
        if "://" in page:
            continue
        target = ROOT / document.parent / page if page else ROOT / document
        headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
        assert heading in {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}, (
            page,
            heading,
        )
