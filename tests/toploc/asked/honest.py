"""What the model itself and altered copies of it are asked, for tests of both verifiers."""

from __future__ import annotations

from models.corpus import TOOLS

from . import ADDITION, BATCH, CHAT, COMPLETIONS, COUNT, GREEDY, STORY, SUM, Asked

IDS = list(range(300, 340))

HONEST: Asked = {
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
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ADDITION}]}], **GREEDY},
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
ALTERED: dict[str, Asked] = {
    kind: {
        f"{kind}-greedy": (CHAT, {"messages": COUNT, **GREEDY}),
        f"{kind}-sampled": (CHAT, {"messages": STORY, "temperature": 1, "max_tokens": 100, "ignore_eos": True}),
    }
    for kind in ("int4", "finetuned")
}
