"""What was decided at start, handed to every process of the server through the environment."""

from __future__ import annotations

import os
import secrets
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

ENVIRONMENT_VARIABLE: Final = "TOPLOC_SETTINGS"
"""One variable, so that forwarding it to remote workers (Ray) takes one name."""


class OnError(StrEnum):
    """What a client gets when an answer cannot be proven."""

    REPORT = "report"  # the text, and `toploc_proofs.error`
    FAIL = "fail"  # HTTP 500


class Role(StrEnum):
    """What a server is there for."""

    PROVER = "prover"  # answers, and verifies
    VERIFIER = "verifier"  # verifies alone


class Page(StrEnum):
    """What the server's page shows of verifications."""

    OWN = "own"  # figures and verdicts, and the text to the API key that asked
    FIGURES = "figures"
    NONE = "none"  # there is no page; in YAML `off` would be no text, and vLLM drops what is false


class Launch(BaseModel):
    """What an engine was started with, for processes that have to know before they can ask it.

    Attributes:
        model: path or name of its weights.
        name: that it is served under.
        engines: how many data-parallel ones there are.
        captures: answers in progress, of one engine, whose hidden states are kept.
        revision, load_format, download_dir: see `weights.Source`.
        tokenizer: whether it has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    name: str
    engines: int = Field(default=1, gt=0)
    captures: int = Field(gt=0)
    revision: str | None = None
    load_format: str = "auto"
    download_dir: str | None = None
    tokenizer: bool = True


class Settings(BaseModel):
    """Start-up settings. Children of the server process inherit them; nothing else configures a worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: str = Field(description="directory of the side channel's sockets, readable by this user alone")
    remote: str | None = Field(default=None, description="tcp://HOST:PORT where workers connect; none: local sockets")
    secret: str = Field(
        default_factory=lambda: secrets.token_hex(32), description="keys the tags' MAC and the side channel over TCP"
    )
    proofs: bool = Field(default=True, description="prove requests that do not say otherwise")
    seed_requests: bool = Field(default=False, description="draw a seed for sampled answers whose request has none")
    on_error: OnError = OnError.REPORT
    finalize_timeout: float = Field(default=10.0, gt=0, description="seconds to wait for a worker's proofs")
    capture_ttl: float = Field(default=120.0, gt=0, description="seconds an abandoned capture is kept")
    signing_keys: tuple[str, ...] = Field(default=(), description="files of keys; the first signs, all are published")
    trusted_keys: str | None = Field(
        default=None, description="file of public keys, whose receipts verifications count"
    )
    receipts: str | None = Field(default=None, description="SQLite file of receipts; none: in memory")
    proofs_file: str | None = Field(default=None, description="SQLite file of recent proofs; none: in memory")
    weights_digest: str = Field(default="file", description="of the weights; `file`: computed; `off`: none is named")
    role: Role = Role.PROVER
    thresholds: str | None = Field(default=None, description="a name or a file; none: by model and dtype")
    copy_head: bool = Field(default=False, description="keep the whole output head on one tensor-parallel rank")
    verify_concurrency: int = Field(default=64, gt=0, description="verifications at once")
    verify_tokens: int = Field(default=2**17, gt=0, description="tokens of prompts and answers in them at once")
    verify_tokens_beside: int = Field(default=1024, gt=0, description="the same while requests are answered")
    verify_body_bytes: int = Field(default=8 * 2**20, gt=0, description="the longest body of a verification")
    verify_priority: int = Field(default=1, description="the engine's; more is later, and answers have 0")
    page: Page = Field(default=Page.OWN, description="what GET /toploc shows of verifications")
    keyed: bool = Field(default=False, description="whether requests need an API key")
    launch: Launch | None = Field(default=None, description="of SGLang; vLLM's processes all know their own")

    def to_environ(self) -> None:
        """Publishes the settings to processes started from here on."""
        os.environ[ENVIRONMENT_VARIABLE] = self.model_dump_json()

    @classmethod
    def from_environ(cls) -> Self | None:
        """The settings of the server this process belongs to; None in an engine that we did not start."""
        text = os.environ.get(ENVIRONMENT_VARIABLE)
        return cls.model_validate_json(text) if text else None
