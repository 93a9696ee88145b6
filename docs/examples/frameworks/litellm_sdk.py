"""LiteLLM's SDK: `python litellm_sdk.py BASE_URL VERIFIER`."""

import json
import sys

import litellm
import toploc_client

BASE_URL, VERIFIER = sys.argv[1:]
MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]
ASK = {"messages": MESSAGES, "temperature": 0, "max_tokens": 32}


def has_field(part):
    return getattr(part, "toploc_proofs", None) is not None


reached = {}
for provider in ("openai", "hosted_vllm"):
    plain = {"model": f"{provider}/toploc-mini", "api_base": BASE_URL, "api_key": "none", **ASK}
    reply = litellm.completion(**plain)
    parts = list(litellm.completion(**plain, stream=True))
    reached[f"{provider}/ response"] = has_field(reply)
    reached[f"{provider}/ stream"] = any(has_field(part) for part in parts)
    reached[f"{provider}/ stream_chunk_builder"] = has_field(litellm.stream_chunk_builder(parts, messages=MESSAGES))

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
checked = {"model": "openai/toploc-mini", "client": client, **ASK}
litellm.completion(**checked)
list(litellm.completion(**checked, stream=True))
litellm.completion(**{**checked, "temperature": 1, "n": 2})

answer = reply.choices[0].message.content
print(json.dumps({"answer": answer, "field": reached, "asked": 3, "checked": client.checks.accepted}))
