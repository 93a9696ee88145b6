"""Unmodified programs behind the gateway: an honest answer comes, a lie is an error that none of them has repeated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lying_provider import EVIL, LyingProvider
from recorded import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from parties import Provider, Running

NODE = ROOT / "build" / "node"
"""What `make test-frameworks` installs."""

FRAMEWORKS = os.environ.get("TOPLOC_FRAMEWORKS", str(ROOT / ".venv-frameworks" / "bin" / "python"))
"""A Python that has what requirements/frameworks.txt names."""

OPENAI_JS = """
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.argv[1], apiKey: 'key' });
const request = JSON.parse(process.argv[2]);
if (request.stream) {
  let text = '';
  const events = await client.chat.completions.create(request);
  for await (const event of events) text += event.choices[0]?.delta?.content ?? '';
  console.log(text);
} else console.log((await client.chat.completions.create(request)).choices[0].message.content);
"""
AI_SDK = """
import { generateText, streamText } from 'ai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
const provider = createOpenAICompatible({ name: 'gateway', baseURL: process.argv[1], apiKey: 'key' });
const { model, messages, stream, temperature, max_tokens } = JSON.parse(process.argv[2]);
const options = { model: provider(model), messages, temperature, maxOutputTokens: max_tokens };
if (stream) {
  const onError = ({ error }) => { console.error(error); process.exitCode = 1; };
  const result = streamText({ ...options, onError });
  let text = '';
  for await (const part of result.textStream) text += part;
  console.log(text);
} else console.log((await generateText(options)).text);
"""
LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI
request = json.loads(sys.argv[2])
named = {name: request[name] for name in ("temperature", "max_tokens", "seed") if name in request}
chat = ChatOpenAI(model=request["model"], base_url=sys.argv[1], api_key="key", **named)
said = [(m["role"], m["content"]) for m in request["messages"]]
print("".join(part.content for part in chat.stream(said)) if request.get("stream") else chat.invoke(said).content)
"""
LITELLM = """
import json, sys
import litellm
request = json.loads(sys.argv[2])
reply = litellm.completion(custom_llm_provider="openai", base_url=sys.argv[1], api_key="key", **request)
if request.get("stream"):
    print("".join(part.choices[0].delta.content or "" for part in reply))
else:
    print(reply.choices[0].message.content)
"""
CURL = """
curl -sSN --fail-with-body "$1/chat/completions" -H 'authorization: Bearer key' -H 'content-type: application/json' \
  -d "$2"
"""


def command(name: str) -> list[str]:
    """Skips where it is not installed."""
    if name in ("openai for JavaScript", "AI SDK"):
        package = "openai" if name != "AI SDK" else "ai"
        if shutil.which("node") is None or not (NODE / "node_modules" / package).is_dir():
            pytest.skip(f"no Node.js, or no package {package!r} in build/node: make test-frameworks")
        return ["node", "--input-type=module", "-e", OPENAI_JS if name != "AI SDK" else AI_SDK]
    if name == "curl":
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        return ["sh", "-c", CURL, "sh"]
    package, script = ("langchain_openai", LANGCHAIN) if name == "LangChain" else ("litellm", LITELLM)
    looks = f"import importlib.util as u; u.find_spec('{package}') or exit(1)"
    if not Path(FRAMEWORKS).exists() or subprocess.run([FRAMEWORKS, "-c", looks], check=False).returncode:
        pytest.skip(f"no {package}: make test-frameworks")
    return [FRAMEWORKS, "-c", script]


def run(name: str, gateway: Running, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    cwd = NODE if name in ("openai for JavaScript", "AI SDK") else None
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "AI_SDK_LOG_WARNINGS": "0"
    }
    arguments = [*command(name), f"{gateway.url}/v1", json.dumps(request)]
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


BODY = ("model", "messages", "temperature", "max_tokens")
NAMES = ("openai for JavaScript", "AI SDK", "LangChain", "LiteLLM", "curl")


@pytest.mark.parametrize("name", NAMES)
def test_programs(start: Callable[..., Running], provider: Provider, name: str) -> None:
    """Each sends a body of its own, which is what verifiers are asked about."""
    command(name)
    gateway = start(provider, api_keys=["key"], policy={"quarantine": {"after": []}})
    text = provider.lying.honest["choices"][0]["message"]["content"]
    request = {
        key: provider.lying.request[key]
        for key in ("model", "messages", "temperature", "max_tokens")
        if key in provider.lying.request
    }
    for stream in (False, True):
        provider.lying.change = lambda _: None
        asked = {**request, "stream": stream}
        honest = run(name, gateway, asked)
        assert honest.returncode == 0, honest.stderr
        if name != "curl":
            assert honest.stdout.strip() == text.strip()
        elif not stream:
            assert json.loads(honest.stdout)["choices"][0]["message"]["content"] == text
        count = len(provider.requests)
        provider.lying.change = lambda response: response["choices"][0]["message"].update(content=EVIL)
        lie = run(name, gateway, asked)
        assert EVIL not in lie.stdout
        assert lie.returncode != 0, lie.stdout
        assert "rejected" in lie.stdout + lie.stderr
        assert len(provider.requests) == count + 1, "it was asked again, and would be billed again"


@pytest.mark.parametrize("stream", [False, True])
def test_openais_sdk(start: Callable[..., Running], provider: Provider, stream: bool) -> None:
    import openai

    gateway = start(provider, api_keys=["key"], policy={"quarantine": {"after": []}})
    asked = {key: value for key, value in provider.lying.request.items() if key in BODY}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="key") as client:

        def ask() -> Any:
            if not stream:
                return client.chat.completions.create(**asked).choices[0].message.content
            events = client.chat.completions.create(**asked, stream=True)
            return "".join(event.choices[0].delta.content or "" for event in events if event.choices)

        assert ask() == provider.lying.honest["choices"][0]["message"]["content"]
        provider.lying.change = lambda response: response["choices"][0]["message"].update(content=EVIL)
        with pytest.raises(openai.APIStatusError, match="rejected"):
            ask()
        assert len(provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_sdk(start: Callable[..., Running], provider: Provider, stream: bool) -> None:
    anthropic = pytest.importorskip("anthropic")
    provider.lying = LyingProvider("message-conversation")
    provider.lying.fresh = True
    # Without an engine nobody rehearses this route's whole response, so that the best verdict is undecided.
    gateway = start(provider, api_keys=["key"], policy={"on_undecided": "warn", "quarantine": {"after": []}})
    named = {key: provider.lying.request[key] for key in ("model", "messages", "max_tokens")}
    request = {**named, "extra_body": {k: v for k, v in provider.lying.request.items() if k not in named}}
    text = next(part["text"] for part in provider.lying.honest["content"] if part["type"] == "text")
    with anthropic.Anthropic(base_url=gateway.url, api_key="key") as client:

        def ask() -> str:
            if not stream:
                return next(part.text for part in client.messages.create(**request).content if part.type == "text")
            with client.messages.stream(**request) as events:
                return "".join(events.text_stream)

        assert ask() == text
        provider.lying.change = lambda response: response["content"][-1].update(text=EVIL)
        count = len(provider.requests)
        with pytest.raises(anthropic.APIStatusError) as error:
            ask()
        assert error.value.status_code == 424
        assert "rejected" in str(error.value)
        assert len(provider.requests) == count + 1


def test_openais_responses(start: Callable[..., Running], provider: Provider) -> None:
    import openai

    provider.lying = LyingProvider("response-items")
    provider.lying.fresh = True
    gateway = start(provider, policy={"on_undecided": "warn"})
    named = {key: provider.lying.request[key] for key in ("model", "input")}
    request = {**named, "extra_body": {k: v for k, v in provider.lying.request.items() if k not in named}}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="key") as client:
        whole = client.responses.create(**request)
        events = list(client.responses.create(**request, stream=True))
        assert events[-1].response.output_text == whole.output_text  # type: ignore[union-attr]
