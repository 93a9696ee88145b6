"""What every vendor is asked: the same requests, whose prompts nobody knew before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from toploc.errors import ToplocError

from .canaries import canary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .config import Requests

Kind = Literal["canary", "sampled", "streamed", "tools", "own"]

MOST: Final = 100_000
"""Lines of a file of requests. Stops one that is no such file."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request's body without a model. A `streamed` one is the canary of the same number again, as a stream."""

    kind: Kind
    number: int
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.number}"


def questions(requests: Requests, seed: str) -> list[Question]:
    """In the order in which they are asked. `seed` draws the canaries. Raises ToplocError for a file that is none.

    1. Canaries, greedy: every token of their answers is evidence.
    2. The same, as streams.
    3. Others, sampled at temperature 1.
    4. Tools.
    5. Those of the file.
    """
    limit = {"max_tokens": requests.tokens}
    made = [
        Question("canary", number, {**_prompt(seed, number), "temperature": 0, "top_p": 1, **limit})
        for number in range(requests.canaries)
    ]
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    made += [Question("streamed", one.number, {**one.body, **streaming}) for one in made[: requests.streamed]]
    sampled = {"temperature": 1, "top_p": 1, **limit}
    made += [
        Question("sampled", number, {**_prompt(f"{seed}:sampled", number), **sampled})
        for number in range(requests.sampled)
    ]
    made += [Question("tools", number, body) for number, body in enumerate(_about_tools(requests.tools))]
    if requests.file is not None:
        made += [Question("own", number, body) for number, body in enumerate(_in_file(requests.file))]
    return made


def _prompt(seed: str, number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": canary(seed, number)}]}


def _about_tools(count: int) -> Iterator[dict[str, Any]]:
    known = _known()
    tools = [{"type": "function", "function": tool} for tool in known["tools"]]
    for number in range(min(count, len(known["questions"]))):
        messages = [{"role": "user", "content": known["questions"][number]}]
        yield {"messages": messages, "tools": tools, "tool_choice": "auto", "temperature": 0, "max_tokens": 512}


@cache
def _known() -> Mapping[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((files(__package__) / "tools.yaml").read_text("utf-8"))
    return loaded


def _in_file(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ToplocError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines[:MOST], 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ToplocError(f"{path}:{number}: no JSON: {error}") from None
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise ToplocError(f"{path}:{number}: expected the body of a chat, with `messages`")
        yield {name: value for name, value in body.items() if name != "model"}
