"""Instructor: `python instructor_patch.py BASE_URL VERIFIER`."""

import json
import sys

import instructor
import openai
import toploc_client
from pydantic import BaseModel

BASE_URL, VERIFIER = sys.argv[1:]


class Sum(BaseModel):
    total: int


ASK = {
    "model": "toploc-mini",
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "temperature": 0,
    "max_tokens": 32,
    "response_model": Sum,
}
MODE = instructor.Mode.JSON_SCHEMA

plain = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key="none"), mode=MODE)
_, completion = plain.chat.completions.create_with_completion(**ASK)
field = {"create_with_completion": "toploc_proofs" in completion.model_extra}

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
checked = instructor.from_openai(client, mode=MODE)
checked.chat.completions.create(**ASK)
list(checked.chat.completions.create_partial(**ASK))

answer = completion.choices[0].message.content
print(json.dumps({"answer": answer, "field": field, "asked": 2, "checked": client.checks.accepted}))
