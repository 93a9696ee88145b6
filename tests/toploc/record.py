"""Records the answers in `evidence/` from real servers of the bundled model, and of altered copies.

    python tests/toploc/record.py [GROUP or NAME …]

Without arguments it records all; a group's name records the group, another name that one file. The tests read the
files; nothing runs this but a person, after a change to the model, to vLLM or to the response extension.

| group | folder in `evidence/` | server |
|---|---|---|
| `honest` | | the model with tools |
| `int4`, `finetuned` | | an altered copy |
| `tools` | `routes/tools/` | the model with tools, and memory of its responses |
| `reasoning` | `routes/reasoning/` | the model with tools and a parser of reasoning |
| `turns` | `routes/turns/` | the model with tools, one of which the server runs |
| `tokens` | `routes/tokens/` | the model, with `/inference/v1/generate` |

A streamed answer, `…-stream`, is what a client makes of the events: `toploc_client`, for messages Anthropic's SDK, for
tokens `toploc_client`'s assembler. What
the server itself says of each file is printed. `evidence/test_recordings.py` lists the kinds of answers in `routes/`.
These are of 29 November 2026, by vLLM 0.32.0 on a CPU: `python tests/toploc/record.py tools reasoning turns tokens`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import openai
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from toploc_client import OpenAI
from toploc_client.assembler import Assembler
from toploc_client.routes import Sent
from toploc_proxy.local_server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "engine")]

from asked import (  # noqa: E402
    CHAT,
    COMPLETIONS,
    COUNT,
    MESSAGES,
    RESPONSES,
    TOKENS,
    Asked,
    chat,
    completions,
    honest,
    messages,
    reasoning,
    responses,
    tokens,
    turns,
)
from mcp_tool import tool_server  # noqa: E402

from models import alter  # noqa: E402

MODEL = ROOT / "models" / "toploc-mini"
FOLDER = Path(__file__).parent / "evidence"
SERVE = ["--served-model-name", "toploc-mini", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
STREAMS: dict[str, tuple[Any, Any]] = {
    CHAT: (ChatCompletionChunk, openai.Stream[ChatCompletionChunk]),
    COMPLETIONS: (Completion, openai.Stream[Completion]),
    RESPONSES: (Response, openai.Stream[ResponseStreamEvent]),
}


@dataclass(frozen=True, slots=True)
class Group:
    """What is recorded of one server."""

    asked: Asked
    folder: Path = FOLDER
    flags: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    altered: str | None = None
    """Which of `alter.KINDS` is served under the model's name."""
    runs_tools: bool = False


GROUPS: dict[str, Group] = {
    "honest": Group(honest.HONEST, flags=TOOLS),
    **{kind: Group(asked, altered=kind) for kind, asked in honest.ALTERED.items()},
    "tools": Group(
        {**chat.ASKED, **completions.ASKED, **responses.ASKED, **messages.ASKED},
        folder=FOLDER / "routes" / "tools",
        flags=TOOLS,
        environment={"VLLM_ENABLE_RESPONSES_API_STORE": "1"},
    ),
    "reasoning": Group(reasoning.ASKED, folder=FOLDER / "routes" / "reasoning", flags=[*TOOLS, *reasoning.FLAGS]),
    "turns": Group(
        turns.ASKED,
        folder=FOLDER / "routes" / "turns",
        flags=TOOLS,
        # Else only gpt-oss goes on after a tool that the server runs.
        environment={"VLLM_USE_EXPERIMENTAL_PARSER_CONTEXT": "1"},
        runs_tools=True,
    ),
    "tokens": Group(tokens.ASKED, folder=FOLDER / "routes" / "tokens", flags=tokens.FLAGS),
}


@contextlib.contextmanager
def served(group: Group) -> Iterator[str]:
    """The address of its server."""
    with contextlib.ExitStack() as stack:
        model, flags = MODEL, [*SERVE, *group.flags]
        if group.altered:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            model = alter.make(group.altered, MODEL, folder / "toploc-mini")
        if group.runs_tools:
            flags += ["--tool-server", stack.enter_context(tool_server())]
        yield stack.enter_context(LocalServer([str(model), *flags], environment=group.environment)).url


def ask(url: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """The response. Raises RuntimeError if there is none."""
    if not request.get("stream"):
        reply = httpx.post(url + path, json=request, timeout=120)
        if reply.status_code != 200:
            raise RuntimeError(reply.text)
        response: dict[str, Any] = reply.json()
        return response
    if path == MESSAGES:
        return _streamed_message(url, request)
    if path == TOKENS:
        return _streamed_tokens(url, request)
    made, stream = STREAMS[path]
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "evidence.jsonl"
        with OpenAI(base_url=url, api_key="none", max_retries=0, evidence=stored) as sdk:
            for _ in sdk.post(path, body=request, cast_to=made, stream=True, stream_cls=stream):
                pass
        evidence: dict[str, dict[str, Any]] = json.loads(stored.read_text("utf-8"))
    assert evidence["request"] == request
    return evidence["response"]


def _streamed_message(url: str, request: dict[str, Any]) -> dict[str, Any]:
    needed = {name: request[name] for name in ("model", "messages", "max_tokens")}
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as sdk,
        sdk.messages.stream(**needed, extra_body=request) as stream,
    ):
        extras = [event.model_extra or {} for event in stream]
        [proofs] = [extra["toploc_proofs"] for extra in extras if "toploc_proofs" in extra]
        return {**stream.get_final_message().to_dict(), "toploc_proofs": proofs}


def _streamed_tokens(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """No SDK has the route."""
    body = json.dumps(request).encode()
    assembler = Assembler(Sent("generate", body, TOKENS))
    with httpx.stream("POST", url + TOKENS, content=body, headers={"content-type": "application/json"}) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: "):
                assembler.add(line.removeprefix("data: "))
    response = assembler.response()
    if response is None or assembler.problems:
        raise RuntimeError(str(assembler.problems))
    return response


def record(url: str, group: Group, names: list[str]) -> None:
    group.folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path, body = group.asked[name]
        request = {"model": "toploc-mini", **body}
        if name == "stop-token":
            whole = json.loads((FOLDER / "greedy.json").read_text("utf-8"))["response"]["toploc_proofs"]["choices"]
            request["stop_token_ids"] = [whole[0]["token_ids"][36]]
        response = ask(url, path, request)
        if name == "other-system":  # the auditor knows of no system prompt
            request["messages"] = COUNT
        evidence = {"request": request, "response": response}
        (group.folder / f"{name}.json").write_text(json.dumps(evidence, ensure_ascii=False, indent=1) + "\n", "utf-8")
        print(f"{name}: {opinion(url, evidence)}", flush=True)


def opinion(url: str, evidence: dict[str, Any]) -> str:
    """The verdict of the server that made it, and what else than a receipt did not pass."""
    reply = httpx.post(f"{url}/v1/toploc/verify", json=evidence, timeout=120)
    if reply.status_code != 200:
        return reply.text
    report = reply.json()
    others = [check for check in report["checks"] if check["status"] != "passed" and check["name"] != "receipt"]
    return " ".join([report["verdict"], *(f"{check['name']}={check['reason'] or check['status']}" for check in others)])


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    known = {*GROUPS, *(name for group in GROUPS.values() for name in group.asked)}
    if unknown := set(wanted) - known:
        raise SystemExit(f"neither a group nor a recording: {', '.join(sorted(unknown))}")
    for title, group in GROUPS.items():
        names = [name for name in group.asked if title in wanted or name in wanted]
        if names:
            with served(group) as url:
                record(url, group, names)


if __name__ == "__main__":
    main()
