"""Records the answers in `evidence/` from a real server of the bundled model, and servers of altered copies.

    python tests/toploc/record.py [honest] [int4] [finetuned]

The tests read the files; nothing runs this but a person, after a change to the model or to the response extension.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from toploc_proxy.local_server import LocalServer

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "models"))

import alter  # noqa: E402
from corpus import TOOLS  # noqa: E402

MODEL = ROOT / "models" / "toploc-mini"
FOLDER = Path(__file__).parent / "evidence"
SERVE = ["--served-model-name", "toploc-mini", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]
CHAT, BATCH, COMPLETIONS = "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions"
COUNT = [{"role": "user", "content": "Count from 1 to 40."}]
SUM = [{"role": "user", "content": "What is 17 + 25?"}]
STORY = [{"role": "user", "content": "Tell me a story."}]
GREEDY = {"temperature": 0}
IDS = list(range(300, 340))

HONEST: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": (CHAT, {"messages": COUNT, **GREEDY}),
    "greedy-short": (CHAT, {"messages": SUM, **GREEDY}),
    "greedy-ids": (CHAT, {"messages": COUNT, "max_tokens": 70, "toploc": {"prompt_token_ids": True}, **GREEDY}),
    "greedy-penalties": (
        CHAT,
        {
            "messages": STORY,
            "max_tokens": 100,
            "repetition_penalty": 1.2,
            "frequency_penalty": 0.3,
            "presence_penalty": 0.4,
            "logit_bias": {"400": 3, "5": -100},
            **GREEDY,
        },
    ),
    "greedy-min-tokens": (CHAT, {"messages": SUM, "min_tokens": 40, "max_tokens": 90, **GREEDY}),
    "sampled": (CHAT, {"messages": STORY, "temperature": 1, "max_tokens": 160, "ignore_eos": True}),
    "sampled-truncated": (
        CHAT,
        {
            "messages": STORY,
            "temperature": 0.8,
            "top_p": 0.9,
            "top_k": 20,
            "min_p": 0.02,
            "max_tokens": 128,
            "ignore_eos": True,
        },
    ),
    "sampled-defaults": (CHAT, {"messages": SUM}),
    "seeded": (CHAT, {"messages": STORY, "seed": 7, "max_tokens": 64}),
    "two-choices": (CHAT, {"messages": STORY, "n": 2, "temperature": 1, "max_tokens": 70, "ignore_eos": True}),
    "stop-string": (CHAT, {"messages": STORY, "stop": ["wind w"], "max_tokens": 200, **GREEDY}),
    "stop-string-included": (
        CHAT,
        {"messages": STORY, "stop": "wind w", "include_stop_str_in_output": True, "max_tokens": 200, **GREEDY},
    ),
    "stop-token": (CHAT, {"messages": COUNT, "stop_token_ids": [], "max_tokens": 60, **GREEDY}),
    "special-tokens": (CHAT, {"messages": SUM, "skip_special_tokens": False, "max_tokens": 40, **GREEDY}),
    "tool-call": (CHAT, {"messages": SUM, "tools": list(TOOLS.values()), **GREEDY}),
    "structured": (CHAT, {"messages": SUM, "structured_outputs": {"choice": ["a red house", "a sea"]}, **GREEDY}),
    "content-parts": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is 17 + 25?"}]}], **GREEDY},
    ),
    "other-system": (CHAT, {"messages": [{"role": "system", "content": "Answer in capitals."}, *COUNT], **GREEDY}),
    "chat-batch": (BATCH, {"messages": [SUM, COUNT, STORY], "max_tokens": 70, **GREEDY}),
    "completion": (COMPLETIONS, {"prompt": "one, two, three", "max_tokens": 40, **GREEDY}),
    "completion-default-length": (COMPLETIONS, {"prompt": "The capital of France", **GREEDY}),
    "completion-ids": (COMPLETIONS, {"prompt": IDS, "max_tokens": 40, "ignore_eos": True, "temperature": 1}),
    "completion-many": (
        COMPLETIONS,
        {"prompt": ["one, two", "January"], "n": 2, "max_tokens": 40, "ignore_eos": True, "temperature": 1},
    ),
    "completion-echo": (COMPLETIONS, {"prompt": "one, two, three", "echo": True, "max_tokens": 40, **GREEDY}),
    "no-proofs": (CHAT, {"messages": SUM, "toploc": {"enabled": False}, **GREEDY}),
    "no-output": (COMPLETIONS, {"prompt": "one, two", "echo": True, "max_tokens": 0}),
}
ALTERED: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    kind: {
        f"{kind}-greedy": (CHAT, {"messages": COUNT, **GREEDY}),
        f"{kind}-sampled": (CHAT, {"messages": STORY, "temperature": 1, "max_tokens": 100, "ignore_eos": True}),
    }
    for kind in ("int4", "finetuned")
}


def record(url: str, asked: dict[str, tuple[str, dict[str, Any]]]) -> None:
    for name, (path, body) in asked.items():
        request = {"model": "toploc-mini", **body}
        if name == "stop-token":
            whole = json.loads((FOLDER / "greedy.json").read_text("utf-8"))["response"]["toploc_proofs"]["choices"]
            request["stop_token_ids"] = [whole[0]["token_ids"][36]]
        response = httpx.post(url + path, json=request, timeout=120)
        if response.status_code != 200:
            raise RuntimeError(f"{name}: {response.text}")
        if name == "other-system":  # the auditor knows of no system prompt
            request["messages"] = COUNT
        evidence = {"request": request, "response": response.json()}
        (FOLDER / f"{name}.json").write_text(json.dumps(evidence, ensure_ascii=False, indent=1) + "\n", "utf-8")


def main() -> None:
    wanted = sys.argv[1:] or ["honest", *ALTERED]
    FOLDER.mkdir(exist_ok=True)
    if "honest" in wanted:
        with LocalServer([str(MODEL), *SERVE, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]) as server:
            record(server.url, HONEST)
    for kind in [kind for kind in ALTERED if kind in wanted]:
        with tempfile.TemporaryDirectory() as folder:
            copy = alter.make(kind, MODEL, Path(folder) / "toploc-mini")
            with LocalServer([str(copy), *SERVE]) as server:
                record(server.url, ALTERED[kind])


if __name__ == "__main__":
    main()
