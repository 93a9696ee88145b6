"""No import runs against the drawn direction (docs/architecture.md, "The folders")."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDERS = {"toploc": "toploc", "toploc_proxy": "proxy", "toploc_client": "client", "toploc_gateway": "gateway"}

# Lowest first. What stands in one line may not import each other either.
LAYERS = {
    "toploc": [
        "errors foreign recent scheme utils",
        "arguments engine kernels leaves pooling",
        "thresholds protocol weights",
        "proofs tokens",
        "poly report receipts",
        "evidence",
        "checks page",
        "verifier",
        "calibration conformance",
        "moved cli",
        "__main__ __init__",
    ],
    "toploc_proxy": [
        "settings log local_server weights",
        "metrics tracing asgi",
        "stores",
        "channel",
        "capture",
        "examine",
        "worker receipts",
        "answers",
        "verify",
        "server",
        "routes options page",
        "application",
        "engines",
        "offline",
        "doctor experiment batch",
        "__init__",
    ],
    "toploc_client": [
        "log share fields merging items asked configuration",
        "judgement exchange routes",
        "errors kept options replays",
        "answer assembler background foreign seeds verifiers",
        "checker",
        "tap",
        "helpers streams",
        "sdk",
        "asynchronous synchronous",
        "audit",
        "vendors",
        "__init__",
    ],
    "toploc_gateway": [
        "log errors headers metrics",
        "config field",
        "access incoming stores",
        "finding",
        "auditor trust upstream",
        "audits delivery",
        "relay",
        "gateway",
        "page",
        "pages",
        "app",
        "command",
        "__init__",
    ],
}
# Packages beside the library, and which of each other they may know.
KNOWN = {"toploc_gateway": ("toploc_client",)}
# Who may import them, by the beginning of a module's name.
OUTSIDE = {
    "vllm": ("toploc_proxy.engines.vllm", "toploc_proxy.doctor.engine"),
    "sglang": ("toploc_proxy.engines.sglang", "toploc_proxy.doctor.sglang"),
    "fastapi": ("toploc_proxy",),
    "starlette": ("toploc_proxy", "toploc_gateway"),
    "uvicorn": ("toploc_proxy", "toploc_gateway"),
    "psycopg": ("toploc_gateway.stores",),
    "openai": ("toploc_client", "toploc_proxy.experiment"),
    "httpx": (
        *("toploc_client", "toploc.verifier", "toploc_proxy.batch", "toploc_proxy.experiment"),
        *("toploc_proxy.local_server", "toploc_gateway"),
    ),
    "torch": ("toploc", "toploc_proxy"),
    "numpy": ("toploc", "toploc_proxy"),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *parts)), path


MODULES = dict(modules())


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a file, for types too, and the line."""
    parents = module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{name}.{alias.name}"
                yield (inner if inner in MODULES or f"{inner}.__init__" in MODULES else name), node.lineno


def layer(module: str) -> tuple[str, int]:
    """The package's part that a module belongs to, and how high it lies."""
    package, *rest = module.split(".")
    part = rest[0] if rest else "__init__"
    level = next((i for i, line in enumerate(LAYERS[package]) if part in line.split()), None)
    assert level is not None, f"{module}: {part} has no place in LAYERS"
    return part, level


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    package = module.split(".")[0]
    part, level = layer(module)
    wrong = []
    for name, line in imports(module, MODULES[module]):
        other = name.split(".")[0]
        if other == package:
            target, height = layer(name)
            if target != part and height >= level:
                wrong.append(f"line {line}: {name} lies no lower than {part}")
        elif other in FOLDERS and other != "toploc" and other not in KNOWN.get(package, ()):
            wrong.append(f"line {line}: {package} may not know {other}")
        elif other in OUTSIDE and not module.startswith(OUTSIDE[other]):
            wrong.append(f"line {line}: {other} is for {', '.join(OUTSIDE[other])}")
    assert not wrong, "\n".join([module, *wrong])


def test_folders_have_no_circles() -> None:
    """Within a package's part too: modules of one folder may use each other, but not in a circle."""
    edges = {
        module: {
            name if name in MODULES else f"{name}.__init__"
            for name, _ in imports_at_load(module, path)
            if name in MODULES or f"{name}.__init__" in MODULES
        }
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def imports_at_load(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """As `imports`, without what functions and type checkers import."""
    tree = ast.parse(path.read_text("utf-8"))
    later: set[int] = set()
    for node in ast.walk(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if function or typing:
            later |= {inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)}
    yield from ((name, line) for name, line in imports(module, path) if line not in later)
