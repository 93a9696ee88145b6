"""The gateway's YAML, parsed once, at start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from toploc_client.configuration import NAME, Section, is_url, read_section, require_candidates, require_distinct
from toploc_client.judgement import Rule  # noqa: TC002 (pydantic reads it)

from toploc.errors import ToplocError

from .errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

Action = Literal["fail", "next", "warn"]
"""What is done with an answer: it is refused; the next upstream is asked, and it is refused if there is none; it is
delivered, with a line in the log."""

Event = Literal["rejected", "undecided", "missing", "alarm"]


class Quarantine(Section):
    """`after`: what brings an upstream there. It comes back after `seconds`, or by an operator's word alone if `never`;
    then its next `probation` answers are all checked before they are delivered."""

    after: tuple[Event, ...] = ("rejected", "alarm")
    seconds: Annotated[float, Field(gt=0)] | Literal["never"] = 3600
    probation: int = Field(default=20, ge=0)


class Policy(Section):
    """What is done with an upstream's answers; the file's own `policy` is the default of each upstream's."""

    when: Literal["inline", "background"] = "inline"
    audit_rate: float = Field(default=1.0, ge=0, le=1)
    on_rejected: Action | None = None
    on_undecided: Action | None = None
    on_missing: Action | None = None
    on_unavailable: Action = "warn"
    on_broken: Literal["fail", "next"] = "fail"
    quarantine: Quarantine = Quarantine()

    @model_validator(mode="after")
    def _somebody_waits(self) -> Self:
        for name in ("on_rejected", "on_undecided", "on_missing", "on_unavailable"):
            if self.when == "background" and getattr(self, name) in ("fail", "next"):
                raise ValueError(f"{name}: in the background the answer was delivered already; give warn")
        return self

    def action(self, verdict: str) -> Action:
        """Of an answer that is not accepted; `unavailable` is one of which the verifiers gave no report."""
        given: Action | None = getattr(self, f"on_{verdict}")
        return given or ("fail" if self.when == "inline" else "warn")

    def strict(self) -> Policy:
        """On probation: all answers before they are delivered."""
        stern = {name: "fail" for name in ("on_rejected", "on_undecided", "on_missing") if self.when == "background"}
        return self.model_copy(update={"when": "inline", "audit_rate": 1.0, **stern})


class VerifierOptions(Section):
    url: str
    api_key: SecretStr | None = None
    timeout: float = Field(default=660, gt=0)
    retries: int = Field(default=4, ge=0)

    _url = field_validator("url")(is_url)


class UpstreamOptions(Section):
    """`proofs`: `given` with every answer; to be `asked` for, by `"toploc": {"enabled": true}`; or `none`, and then
    verifiers, if there are any, hold answers to their text alone, drawn under one of `sampling`. `models`: those that
    it serves, `*` for all."""

    name: str = Field(pattern=NAME)
    url: str
    api_key: SecretStr | None = None
    models: tuple[str, ...] = Field(min_length=1)
    proofs: Literal["given", "asked", "none"] = "given"
    verifiers: tuple[VerifierOptions, ...] = ()
    sampling: tuple[dict[str, float], ...] | None = None
    rule: Rule = "all"
    trusted_keys: str | None = None
    draw_seeds: bool = True
    policy: Policy = Policy()

    _url = field_validator("url")(is_url)

    @model_validator(mode="after")
    def _somebody_checks(self) -> Self:
        if self.proofs != "none" and not (self.verifiers or self.trusted_keys):
            raise ValueError("verifiers: nobody checks the proofs; give verifiers or trusted_keys, or `proofs: none`")
        if self.sampling is not None and self.proofs != "none":
            raise ValueError("sampling: goes with `proofs: none`; of other answers the request says it")
        require_candidates(self.sampling)
        return self

    @property
    def checks(self) -> bool:
        """Whether anything is to be found of its answers."""
        return self.proofs != "none" or bool(self.verifiers)

    def strict(self) -> Policy:
        """On probation. A text alone leaves much undecided: what is done with that stays."""
        strict = self.policy.strict()
        if self.proofs != "none":
            return strict
        return strict.model_copy(update={"on_undecided": self.policy.action("undecided")})

    def serves(self, model: str | None) -> bool:
        return model is None or model in self.models or "*" in self.models


class StoreOptions(Section):
    """`evidence`: of all answers, or of those that are `checked` alone. `on_error`: `fail` refuses answers that cannot
    be stored, `warn` delivers them."""

    url: str = "sqlite:gateway.db"
    evidence: Literal["all", "checked"] = "checked"
    on_error: Literal["fail", "warn"] = "fail"
    keep_days: float = Field(default=30, gt=0)

    @field_validator("url")
    @classmethod
    def _known(cls, value: str) -> str:
        if not value.startswith(("sqlite:", "postgresql://", "postgres://")):
            raise ValueError("expected sqlite:FILE or postgresql://USER@HOST/DATABASE")
        return value


class Limits(Section):
    """`requests` in progress at once; bytes of a request's body, of an answer that is checked, and of all that are."""

    requests: int = Field(default=512, ge=1)
    body_bytes: int = Field(default=64 * 2**20, ge=1)
    answer_bytes: int = Field(default=32 * 2**20, ge=1)
    held_bytes: int = Field(default=2**30, ge=1)


class Timeouts(Section):
    """Seconds: to connect to an upstream; between two parts of its reply; for the whole reply; for an application's
    request to come in whole; for answers in progress when the gateway stops."""

    connect: float = Field(default=10, gt=0)
    read: float = Field(default=300, gt=0)
    total: float = Field(default=3600, gt=0)
    body: float = Field(default=60, gt=0)
    stop: float = Field(default=30, gt=0)


class Config(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8100, ge=0, le=65535)
    api_keys: tuple[SecretStr, ...] = ()
    open: bool = False
    field: Literal["pass", "strip"] = "pass"
    log: Literal["json", "text"] = "json"
    store: StoreOptions = StoreOptions()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    policy: Policy = Policy()
    upstreams: tuple[UpstreamOptions, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _default_policy(cls, given: Any) -> Any:
        """An upstream's policy has the file's where it says nothing."""
        if not isinstance(given, dict) or not isinstance(upstreams := given.get("upstreams"), list):
            return given
        merged = [_with_policy(_lenient(one), given.get("policy")) for one in upstreams]
        return {**given, "upstreams": merged}

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(not key.get_secret_value().strip() for key in keys):
            raise ValueError("a key is empty, which everybody has; give another, as `openssl rand -hex 32` makes")
        return keys

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [upstream.name for upstream in self.upstreams]
        require_distinct(names, "upstreams")
        if not (self.api_keys or self.open or self.host in LOOPBACK):
            raise ValueError(f"api_keys: whoever reaches {self.host} may ask; give keys, or `open: true`")
        return self


def read_config(path: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> Config:
    """Raises InvalidConfig, a line for each field that is wrong."""
    try:
        return read_section(path, Config, environment, example="upstreams", document="docs/gateway.md")
    except ToplocError as error:
        raise InvalidConfig(str(error)) from None


def _lenient(upstream: Any) -> Any:
    """Of one without proofs much is undecided, so that is delivered unless its own policy says otherwise."""
    if not isinstance(upstream, dict) or upstream.get("proofs") != "none":
        return upstream
    own = upstream.get("policy") or {}
    return {**upstream, "policy": {"on_undecided": "warn", **own}} if isinstance(own, dict) else upstream


def _with_policy(upstream: Any, policy: Any) -> Any:
    if not isinstance(upstream, dict) or not isinstance(policy, dict):
        return upstream
    own = upstream.get("policy") or {}
    if not isinstance(own, dict):
        return upstream
    inherited = policy
    if own.get("when") == "background" != policy.get("when"):  # what is done while somebody waits is no default there
        inherited = {name: part for name, part in policy.items() if not name.startswith("on_")}
    both = {**inherited, **own}
    if isinstance(policy.get("quarantine"), dict) and isinstance(own.get("quarantine"), dict):
        both["quarantine"] = {**policy["quarantine"], **own["quarantine"]}
    return {**upstream, "policy": both}
