"""`toploc doctor`: would `toploc serve`, or `toploc sglang`, come up here, and if not, what is to be done? Starts no
engine."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from ..engines.sglang.serve.plugins import require_plugin
from ..engines.vllm.serve.plugins import require_plugins
from . import engine, sglang
from .finding import Outcome
from .host import check_channel, check_model, check_plugins, check_port, check_shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .finding import Finding

ENGINES: Final[dict[str, tuple[Callable[[], Iterator[Finding]], ...]]] = {
    "vllm": (partial(check_plugins, require_plugins), engine.check_engine),
    "sglang": (partial(check_plugins, require_plugin), sglang.check_engine),
}
"""The checks of each engine."""

EPILOG: Final = "Exit status: 0 if nothing failed, 1 if something did. A warning fails nothing."


def main(arguments: Sequence[str]) -> int:
    """Prints what each check found, and the exit status: 1 if one has failed."""
    parser = argparse.ArgumentParser("toploc doctor", description=__doc__, epilog=EPILOG)
    parser.add_argument("model", nargs="?", help="the directory or name that `toploc serve` will get")
    parser.add_argument("--engine", choices=list(ENGINES), default="vllm", help="which one is to serve (default: vllm)")
    parser.add_argument("--host", default="", help="as for `toploc serve` (default: all addresses)")
    parser.add_argument("--port", type=int, default=8000, help="as for `toploc serve` (default: 8000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    findings = list(examine(args.engine, args.model, args.host, args.port))
    ok = all(finding.outcome is not Outcome.FAILED for finding in findings)
    if args.json:
        print(orjson.dumps({"ok": ok, "checks": findings}).decode())
    else:
        for finding in findings:
            print(finding)
    return 0 if ok else 1


def examine(name: str, model: str | None, host: str, port: int) -> Iterator[Finding]:
    """Every check, whatever those before it found."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        *ENGINES[name],
        partial(check_port, host, port),
        check_channel,
        check_shared_memory,
    ]
    if model is not None:
        checks.append(partial(check_model, model))
    for check in checks:
        yield from check()
