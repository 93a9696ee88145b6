"""The OpenAI SDK that checks what it is told, and the audit of many answers.

`from toploc_client import OpenAI` takes the place of `from openai import OpenAI`; `docs/client.md` has the rest.

Where to start reading:
- `sdk.py`: both clients, and the one place in the SDK that every reply passes.
- `tap.py`: what stands between a reply's bytes and whoever reads them; `assembler.py`: what a stream adds up to.
- `checker.py`: what is done with an answer, in the order in which it is done.
- `judgement.py`: the verdict of several verifiers.
- `audit/run.py`: `toploc audit`, which does the same for a file of answers.

Importing this needs neither torch nor numpy.
"""

from toploc.errors import ToplocError, VerifierUnavailable
from toploc.evidence.file import EvidenceFile, Line, read_lines
from toploc.protocol import ToplocProofs
from toploc.report import Check, Report
from toploc.verifier.server import AsyncVerifier, Verifier

from .asynchronous.sdk import AsyncOpenAI
from .errors import MissingProofs, RejectedResponse, UnacceptedResponse, UndecidedResponse
from .judgement import Judgement, Opinion
from .options import Options, Verifies
from .synchronous.sdk import OpenAI

__all__ = [
    "AsyncOpenAI",
    "AsyncVerifier",
    "Check",
    "EvidenceFile",
    "Judgement",
    "Line",
    "MissingProofs",
    "OpenAI",
    "Opinion",
    "Options",
    "RejectedResponse",
    "Report",
    "ToplocError",
    "ToplocProofs",
    "UnacceptedResponse",
    "UndecidedResponse",
    "Verifier",
    "VerifierUnavailable",
    "Verifies",
    "read_lines",
]
