"""Anthropic's SDK for Python: `python anthropic_sdk.py BASE_URL VERIFIER`. No client can be handed to it."""

import json
import sys

import anthropic
import toploc_client

BASE_URL, VERIFIER = sys.argv[1:]
ASK = {
    "model": "toploc-mini",
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "max_tokens": 32,
}
GREEDY = {"temperature": 0}  # not an option of this SDK's methods

plain = anthropic.Anthropic(base_url=BASE_URL.removesuffix("/v1"), api_key="none")
message = plain.messages.create(**ASK, extra_body=GREEDY)
events = list(plain.messages.create(**ASK, extra_body=GREEDY, stream=True))
with plain.messages.stream(**ASK, extra_body=GREEDY) as helper:
    final = helper.get_final_message()
field = {
    "response": "toploc_proofs" in message.model_extra,
    "stream": any("toploc_proofs" in event.model_extra for event in events),
    "final object of .stream()": "toploc_proofs" in final.model_extra,
}

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
report = client.verify({**ASK, **GREEDY}, message.model_dump(mode="json", exclude_unset=True))  # what came can be checked by hand

answer = message.content[0].text
print(json.dumps({"answer": answer, "field": field, "asked": 1, "checked": int(report.accepted)}))
