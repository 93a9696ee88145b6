"""Ed25519 keys of receipts: the provider's own, and those that an auditor trusts."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidKey

MAX_FILE: Final = 2**20
"""Bytes of a key file. Stops a path that names something endless."""


class PublicKey(BaseModel):
    """A key that receipts are checked with, as `GET /v1/toploc` publishes it.

    `key_id` is derived: 16 hexadecimal digits of the SHA-256 of the 32 bytes. Receipts issued after `not_after` are
    refused; a thief of the key can date them back, so a stolen key has to be taken out altogether.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(pattern="^[A-Za-z0-9+/]{43}=$", description="32 bytes, base64")
    not_after: AwareDatetime | None = None

    @model_validator(mode="after")
    def _id_of_the_key(self) -> Self:
        if self.key_id != _key_id(b64decode(self.public_key)):
            raise ValueError("`key_id` is not that of `public_key`")
        return self

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> Self:
        raw = key.public_bytes_raw()
        return cls(key_id=_key_id(raw), public_key=b64encode(raw).decode())

    def verifies(self, signature: str, message: bytes) -> bool:
        """Whether this key signed the message; `signature` is base64."""
        try:
            key = Ed25519PublicKey.from_public_bytes(b64decode(self.public_key))
            key.verify(b64decode(signature, validate=True), message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def expired_at(self, seconds: float) -> bool:
        return self.not_after is not None and seconds > self.not_after.timestamp()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; its `repr` shows the public half alone."""

    _private: Ed25519PrivateKey
    public: PublicKey

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> Self:
        return cls(private, PublicKey.of(private.public_key()))

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """A PKCS #8 PEM without a password. Raises InvalidKey."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise InvalidKey("encrypted; a signing key has no password") from None
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidKey("not a private key in PEM; `toploc keygen` makes one") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidKey("not an Ed25519 key; `toploc keygen` makes one")
        return cls.of(private)

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new key, in a new file that its user alone can read. Raises InvalidKey, if the file is there already."""
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
        except OSError as error:
            raise InvalidKey(f"{path}: {error.strerror}") from None
        return cls.of(private)

    def sign(self, message: bytes) -> str:
        """The signature, 64 bytes in base64."""
        return b64encode(self._private.sign(message)).decode()

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id})"


def load_signing_keys(paths: list[str]) -> tuple[SigningKey, tuple[PublicKey, ...]]:
    """The key that signs, which is the first, and the public halves of all.

    The others may be files of public keys, as for `load_trusted_keys`: a retired private key has no business on a
    server. Raises InvalidKey.
    """
    first, *others = paths
    try:
        signing = SigningKey.parse(_read(first))
    except InvalidKey as error:
        raise InvalidKey(f"{first}: {error}") from None
    published = [signing.public]
    for path in others:
        published += load_trusted_keys(path)
    return signing, tuple({key.key_id: key for key in reversed(published)}.values())[::-1]


def load_trusted_keys(path: str) -> tuple[PublicKey, ...]:
    """The public keys in a file: what `toploc keygen` prints, a list of that, or what `GET /v1/toploc` answers.

    A private key stands for its public half. Raises InvalidKey.
    """
    data = _read(path)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return (SigningKey.parse(data).public,)
        return parse_keys(json.loads(data))
    except (ValueError, RecursionError):
        raise InvalidKey(f"{path}: neither JSON nor PEM") from None
    except InvalidKey as error:
        raise InvalidKey(f"{path}: {error}") from None


def parse_keys(value: object) -> tuple[PublicKey, ...]:
    """See `load_trusted_keys`, of parsed JSON. Raises InvalidKey."""
    listed = value.get("keys", [value]) if isinstance(value, dict) else value
    if not isinstance(listed, list) or not listed:
        raise InvalidKey("expected at least one public key")
    try:
        return tuple(PublicKey.model_validate(item) for item in listed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidKey(f"not a public key: {where}: {first['msg']}" if where else first["msg"]) from None


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE)
    except OSError as error:
        raise InvalidKey(str(error.strerror)) from None


def _key_id(raw: bytes) -> str:
    return sha256(raw).hexdigest()[:16]
