"""Frameworks in front of a real server: what reaches their users, and that every answer can be checked.

Each example of docs/examples/frameworks is run as it stands there. `make test-frameworks` installs what they need;
without it they are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from options import NAME
from parties import Running, gateway_before

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asking import Api
    from toploc_proxy.local_server import LocalServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "frameworks"
PYTHON = Path(os.environ.get("TOPLOC_FRAMEWORKS", ROOT / ".venv-frameworks" / "bin" / "python"))
"""One that has what requirements/frameworks.txt names."""
NODE = Path(os.environ.get("TOPLOC_NODE", ROOT / "build" / "node"))
"""A folder with `node_modules`."""
QUESTION = {
    "model": NAME,
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "temperature": 0,
    "max_tokens": 32,
}

FINAL = "final object of .stream()"
# What of an answer's field reaches a framework's user: the table in docs/client.md.
REACHES: dict[str, dict[str, bool]] = {
    "openai_sdk.py": {"response": True, "stream": True, FINAL: False},
    "anthropic_sdk.py": {"response": True, "stream": True, FINAL: False},
    "litellm_sdk.py": {
        "openai/ response": True,
        "openai/ stream": True,
        "openai/ stream_chunk_builder": False,
        "hosted_vllm/ response": True,
        "hosted_vllm/ stream": False,
        "hosted_vllm/ stream_chunk_builder": False,
    },
    "llama_index_llm.py": {"response": True, "stream": True},
    "instructor_patch.py": {"create_with_completion": True},
    "langchain_openai_chat.py": {"response": False, "stream": False},
    "pydantic_ai_agent.py": {"response": False},
    "openai_sdk.mjs": {"response": True, "stream": True, FINAL: True},
    "ai_sdk.mjs": {
        "response": False,
        "response, by metadataExtractor": True,
        "stream, by metadataExtractor": True,
    },
}
SCRIPTS = [name for name in REACHES if name.endswith(".py")]
MODULES = [name for name in REACHES if name.endswith(".mjs")]
OWN_FORMAT = ("instructor_patch.py", "ai_sdk.mjs")
"""Whose requests say more than the question."""


def run(name: str, *arguments: str) -> dict[str, Any]:
    """What an example says in its last line."""
    if name.endswith(".py"):
        if not PYTHON.exists():
            pytest.skip("no .venv-frameworks: make test-frameworks")
        call = [str(PYTHON), "-W", "ignore", str(EXAMPLES / name)]
    else:
        if shutil.which("node") is None or not (NODE / "node_modules").is_dir():
            pytest.skip("no Node.js, or no packages in build/node: make test-frameworks")
        # Modules look for packages beside themselves.
        call = ["node", shutil.copy(EXAMPLES / name, NODE)]
    done = subprocess.run([*call, *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture(scope="module")
def gateway(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with gateway_before(server.url, NAME, "none", tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_says_what_reaches_its_user_and_checks_every_answer(
    server: LocalServer, plain: Api, name: str
) -> None:
    said = run(name, f"{server.url}/v1", server.url)
    assert said["field"] == REACHES[name]
    assert said["checked"] == said["asked"] > 0
    if name not in OWN_FORMAT:
        assert said["answer"] == answer(plain)


@pytest.mark.parametrize("name", MODULES)
def test_an_example_in_javascript_behind_the_gateway(gateway: Running, plain: Api, name: str) -> None:
    before = accepted(gateway)
    said = run(name, f"{gateway.url}/v1")
    assert said["field"] == REACHES[name]
    assert said["answer"] == answer(plain)
    assert accepted(gateway) == before + 3


def test_litellms_proxy_behind_the_gateway(gateway: Running, plain: Api, tmp_path: Path) -> None:
    """It drops the field of a chat's stream; whatever comes through it was checked before."""
    before = accepted(gateway)
    with litellm_proxy(f"{gateway.url}/v1", tmp_path) as proxy:
        whole = proxy.post("/v1/chat/completions", json=QUESTION)
        events = proxy.post("/v1/chat/completions", json={**QUESTION, "stream": True})
    assert whole.json()["choices"][0]["message"]["content"] == answer(plain)
    assert "toploc_proofs" in whole.json()
    assert events.text.rstrip().endswith("data: [DONE]")
    assert "toploc_proofs" not in events.text
    assert accepted(gateway) == before + 2


def answer(plain: Api) -> str:
    reply = plain.http.post("/v1/chat/completions", json=QUESTION)
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def accepted(gateway: Running) -> int:
    number: int = gateway.upstream()["answers"].get(NAME, {}).get("accepted", 0)
    return number


class litellm_proxy:  # noqa: N801 - used as a function
    """LiteLLM's proxy on a port, before what answers at `url`; a client of it."""

    def __init__(self, url: str, folder: Path) -> None:
        if not (command := PYTHON.with_name("litellm")).exists():
            pytest.skip("no .venv-frameworks: make test-frameworks")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        model = {"model": f"openai/{NAME}", "api_base": url, "api_key": "none"}
        config = {
            "model_list": [{"model_name": NAME, "litellm_params": model}],
            "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        }
        path, self._log = folder / "litellm.yaml", folder / "litellm.log"
        path.write_text(yaml.safe_dump(config))
        self._call = [str(command), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def __enter__(self) -> httpx.Client:
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._call, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._http.get("/health/liveliness").is_success:
                    return self._http
            except httpx.TransportError:
                time.sleep(0.5)
        self._process.kill()
        raise AssertionError(self._log.read_text()[-4000:])

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(30)
