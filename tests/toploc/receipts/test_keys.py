"""Files of keys: what is written, read and refused."""

from __future__ import annotations

import json
import stat
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from toploc.cli import main as cli
from toploc.errors import InvalidKey
from toploc.receipts.keys import PublicKey, SigningKey, load_signing_keys, load_trusted_keys, parse_keys

if TYPE_CHECKING:
    from pathlib import Path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["toploc", *arguments])
    return cli()


def test_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.pem"
    assert run(monkeypatch, "keygen", str(path)) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    printed = json.loads(capsys.readouterr().out)
    key, published = load_signing_keys([str(path)])
    assert published == parse_keys(printed) == (key.public,)
    assert key.public.verifies(key.sign(b"message"), b"message")
    assert not key.public.verifies(key.sign(b"message"), b"massage")
    assert repr(key) == f"SigningKey({key.public.key_id})"
    before = path.read_bytes()
    assert run(monkeypatch, "keygen", str(path)) == 2
    assert capsys.readouterr().err == f"{path}: File exists\n"
    assert path.read_bytes() == before
    assert run(monkeypatch, "keygen", str(tmp_path / "none" / "key.pem")) == 2


def test_rotation(tmp_path: Path) -> None:
    """The first signs; retired keys are published from their public halves, with an end."""
    new, old, older = (SigningKey.create(tmp_path / f"{name}.pem") for name in ("new", "old", "older"))
    end = datetime(2027, 1, 1, tzinfo=UTC)
    retired = old.public.model_copy(update={"not_after": end})
    (tmp_path / "old.json").write_text(retired.model_dump_json())
    paths = [str(tmp_path / name) for name in ("new.pem", "old.json", "older.pem")]
    signing, published = load_signing_keys(paths)
    assert signing.public == new.public
    assert published == (new.public, retired, older.public)
    assert not retired.expired_at(end.timestamp())
    assert retired.expired_at(end.timestamp() + 1)


def test_trusted_keys(tmp_path: Path) -> None:
    keys = [SigningKey.of(Ed25519PrivateKey.generate()).public for _ in range(2)]
    listed = [json.loads(key.model_dump_json(exclude_none=True)) for key in keys]
    for value in (listed, {"keys": listed}, {"version": 1, "model": "m", "keys": listed}):
        (tmp_path / "keys.json").write_text(json.dumps(value))
        assert load_trusted_keys(str(tmp_path / "keys.json")) == tuple(keys)
    assert parse_keys(listed[0]) == (keys[0],)


VALID = json.loads(SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32))).public.model_dump_json())


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"keys": []},
        {"keys": None},
        5,
        ["x"],
        {},
        {**VALID, "key_id": "0" * 16},
        {**VALID, "public_key": VALID["public_key"][:-4]},
        {**VALID, "algorithm": "rsa"},
        {**VALID, "not_after": "soon"},
        {**VALID, "not_after": "2027-01-01T00:00:00"},
        {**VALID, "unknown": 1},
    ],
)
def test_no_public_keys(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidKey):
        parse_keys(value)
    (tmp_path / "keys.json").write_text(json.dumps(value))
    with pytest.raises(InvalidKey, match=r"keys\.json: "):
        load_trusted_keys(str(tmp_path / "keys.json"))


def pem(key: Any, encryption: Any = None) -> bytes:
    encryption = encryption or serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


NO_SIGNING_KEYS = {
    "encrypted": pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"x")),
    "not an Ed25519": pem(generate_private_key(SECP256R1())),
    "not a private key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "toploc keygen": json.dumps(VALID).encode(),
}


@pytest.mark.parametrize("why", NO_SIGNING_KEYS)
def test_no_signing_keys(why: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(NO_SIGNING_KEYS[why])
    with pytest.raises(InvalidKey, match=f"key: .*{why}"):
        load_signing_keys([str(tmp_path / "key")])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for load in (lambda path: load_signing_keys([path]), load_trusted_keys):
        with pytest.raises(InvalidKey, match="No such file"):
            load(str(tmp_path / "none"))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InvalidKey, match="neither JSON nor PEM"):
        load_trusted_keys(str(tmp_path / "deep.json"))


def test_ids_are_those_of_keys() -> None:
    """SHA-256 of the 32 bytes, 16 digits: of RFC 8032's first test key."""
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    public = PublicKey.of(key.public_key())
    assert public.public_key == "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert public.key_id == "21fe31dfa154a261"
