"""OpenAI's SDK for Python: `python openai_sdk.py BASE_URL VERIFIER`."""

import json
import sys

import openai
import toploc_client

BASE_URL, VERIFIER = sys.argv[1:]
ASK = {
    "model": "toploc-mini",
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "temperature": 0,
    "max_tokens": 32,
}

plain = openai.OpenAI(base_url=BASE_URL, api_key="none")
completion = plain.chat.completions.create(**ASK)
events = list(plain.chat.completions.create(**ASK, stream=True))
with plain.chat.completions.stream(**ASK) as helper:
    final = helper.get_final_completion()
field = {
    "response": "toploc_proofs" in completion.model_extra,
    "stream": any("toploc_proofs" in event.model_extra for event in events),
    "final object of .stream()": "toploc_proofs" in final.model_extra,
}

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
client.chat.completions.create(**ASK)
for _ in client.chat.completions.create(**ASK, stream=True):
    pass
client.chat.completions.create(**{**ASK, "temperature": 1}, n=2)

answer = completion.choices[0].message.content
print(json.dumps({"answer": answer, "field": field, "asked": 3, "checked": client.checks.accepted}))
