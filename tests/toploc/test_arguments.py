"""Types of arguments: what they take, and what they say of the rest."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

import pytest

from toploc.arguments import add_api_key, api_key, positive, rate, seconds, seconds_or_none, share, split
from toploc.errors import ToplocError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(positive, "1", 1), (seconds, "0.5", 0.5), (seconds_or_none, "0", 0), (share, "1", 1.0), (rate, "1e-4", 1e-4)],
)
def test_values(kind: Any, text: str, value: float) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (positive, "0", "expected 1 or more, got 0"),
        (positive, "1.5", "expected a whole number, got 1.5"),
        (seconds, "0", "expected more than 0 seconds, got 0"),
        (seconds, "nan", "expected more than 0 seconds, got nan"),
        (seconds, "1e9", "expected more than 0 seconds, got 1e9"),
        (seconds_or_none, "-1", "expected more than 0 seconds, got -1"),
        (share, "0", "expected a share above 0, up to 1, got 0"),
        (rate, "1", "expected a share between 0 and 1, got 1"),
        (rate, "x", "expected a share, got x"),
    ],
)
def test_others_are_refused(kind: Any, text: str, expected: str) -> None:
    with pytest.raises(ArgumentTypeError) as error:
        kind(text)
    assert str(error.value) == expected


def test_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = ArgumentParser()
    add_api_key(parser, "the server's")
    monkeypatch.setenv("SOME_KEY", "secret")
    monkeypatch.delenv("NO_KEY", raising=False)
    assert api_key(parser.parse_args(["--api-key-env", "SOME_KEY"])) == "secret"
    assert api_key(Namespace(api_key_env=None)) is None
    with pytest.raises(ToplocError, match="--api-key-env: NO_KEY is not set"):
        api_key(parser.parse_args(["--api-key-env", "NO_KEY"]))


def test_split() -> None:
    assert split(["a", "--", "b", "--"]) == (["a"], ["b", "--"])
    assert split(["a"]) == (["a"], [])
