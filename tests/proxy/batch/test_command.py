"""What `toploc run-batch` refuses before it starts a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from toploc_proxy.batch.command import _api_key, main
from toploc_proxy.batch.lines import Answered, Asked, read_lines

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path

LINE = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}


def line(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**LINE, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(custom_id=None), "line 2: custom_id: Field required"),
        (line(method="GET"), "line 2: method: String should match"),
        (line(url="v1/completions"), "line 2: url: String should match"),
        (line(body=[]), "line 2: body: Input should be"),
        ("{", "line 2: the line: Invalid JSON"),
    ],
)
def test_lines_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(f"{line()}\n{text}\n")
    with pytest.raises(ToplocError, match=message):
        main(["-i", str(path), "-o", str(tmp_path / "out"), "--model", "m"])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with pytest.raises(ToplocError, match="cannot be read"):
        main(["-i", str(path), "-o", str(tmp_path / "out"), "--model", "m"])
    path.write_text(line())
    with pytest.raises(ToplocError, match="there is no such folder"):
        main(["-i", str(path), "-o", str(tmp_path / "no" / "out"), "--model", "m"])
    with pytest.raises(ToplocError, match="--enable-metrics"):
        main(["-i", str(path), "-o", str(tmp_path / "out"), "--model", "m", "--enable-metrics"])


def test_blank_lines_and_other_fields_say_nothing() -> None:
    assert list(read_lines(f"\n{line(more=1)}\n  \n", "x")) == [Asked(**LINE)]


def test_a_line_of_the_output() -> None:
    asked = Asked(**LINE)
    good, bad = Answered.of(asked, 200, {"id": "x"}), Answered.of(asked, 404, {"error": {"message": "no"}})
    assert (good.response.body, good.error) == ({"id": "x"}, None)
    assert (bad.response.body, bad.error) == (None, {"error": {"message": "no"}})


@pytest.mark.parametrize(
    ("options", "key"), [(["--api-key", "a"], "a"), (["--x", "--api-key=b"], "b"), (["--api-key"], None), ([], None)]
)
def test_the_servers_key(options: list[str], key: str | None) -> None:
    assert _api_key(options) == key
