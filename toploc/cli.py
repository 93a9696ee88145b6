"""The console script `toploc`: finds the subcommand and imports nothing else."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from .errors import ToplocError
from .foreign import printable
from .scheme import SCHEME, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: `module:main` takes the arguments after the name and returns an exit status or None."""

    name: str
    summary: str
    module: str
    extra: str


COMMANDS: Final = (
    Command("serve", "vllm serve, with proofs in every answer", "toploc_proxy.engines.vllm.serve.command", "proxy"),
    Command(
        "sglang",
        "SGLang's server, with proofs in every answer",
        "toploc_proxy.engines.sglang.serve.command",
        "sglang",
    ),
    Command("run-batch", "vllm run-batch, with proofs in every response", "toploc_proxy.batch.command", "proxy"),
    Command("verify", "is a stored answer what its model says to its request?", "toploc.verifier.command", "all"),
    Command(
        "generate", "answers with proofs to a data set's prompts", "toploc_proxy.experiment.generate", "experiments"
    ),
    Command("validate", "its answers, held against another prefill", "toploc_proxy.experiment.validate", "experiments"),
    Command(
        "calibrate", "thresholds for a model, from stored honest answers", "toploc.calibration.command", "calibrate"
    ),
    Command("audit", "the reports of verifiers on a file of answers, added up", "toploc_client.audit.command", "all"),
    Command(
        "vendors", "providers of one model, asked the same, side by side", "toploc_client.vendors.command", "vendors"
    ),
    Command("gateway", "one address whose answers are checked, from any provider", "toploc_gateway.command", "gateway"),
    Command(
        "doctor",
        "would a server come up here, and if not, what is to be done?",
        "toploc_proxy.doctor.command",
        "proxy",
    ),
    Command("weights-digest", "the digest of a model's weights that receipts name", "toploc.weights", "core"),
    Command("keygen", "a key that `toploc serve` signs answers with", "toploc.receipts.keygen", "proxy"),
)


def main() -> int:
    """Exit status 0, or the subcommand's own; 2 for a wrong call or an error with a message for the user, 130 where it
    was interrupted, 141 where nobody reads on."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(versions())
        return 0
    command = next((command for command in COMMANDS if command.name == arguments[0]), None)
    if command is None:
        print(f"toploc: no subcommand {arguments[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        return load(command)(arguments[1:]) or 0
    except ToplocError as error:
        # What a server says of an error is in it.
        print("\n".join(printable(line) for line in str(error).split("\n")), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Its reader has gone, as `head` does. What is buffered still would raise at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def load(command: Command) -> Callable[[Sequence[str]], int | None]:
    """Raises ToplocError, naming the extra to install, where a package the subcommand needs is missing."""
    try:
        function: Callable[[Sequence[str]], int | None] = import_module(command.module).main
    except ModuleNotFoundError as error:
        raise ToplocError(
            f"toploc {command.name}: {error.name} is not installed; pip install 'toploc-proxy[{command.extra}]'"
        ) from error
    return function


def versions() -> str:
    """Ours, the engine's and that of the proof format, a line each."""
    return "\n".join(
        [
            f"toploc-proxy  {version('toploc-proxy')}",
            f"vLLM          {_installed('vllm')}",
            f"SGLang        {_installed('sglang')}",
            f"proof format  {SCHEME}, version {VERSION}",
        ]
    )


def _installed(engine: str) -> str:
    try:
        found = import_module(f"toploc_proxy.engines.{engine}.version").installed_version()
    except ModuleNotFoundError:
        found = None
    return found or "not installed"


def usage() -> str:
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:{width}}  {command.summary}" for command in COMMANDS]
    more = "`toploc COMMAND --help` lists a command's options, `toploc --version` what is installed."
    return "\n".join(["usage: toploc COMMAND …", "", *lines, "", more])
