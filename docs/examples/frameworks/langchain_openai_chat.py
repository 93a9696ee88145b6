"""LangChain's ChatOpenAI: `python langchain_openai_chat.py BASE_URL VERIFIER`."""

import asyncio
import json
import sys

import toploc_client
from langchain_openai import ChatOpenAI

BASE_URL, VERIFIER = sys.argv[1:]
MODEL = {"model": "toploc-mini", "temperature": 0, "max_tokens": 32}
QUESTION = "What is 17 + 25?"

plain = ChatOpenAI(base_url=BASE_URL, api_key="none", **MODEL)
message = plain.invoke(QUESTION)
field = {
    "response": "toploc_proofs" in repr(message),
    "stream": any("toploc_proofs" in repr(part) for part in plain.stream(QUESTION)),
}

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
asynchronous = toploc_client.AsyncOpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
checked = ChatOpenAI(
    client=client.chat.completions,
    root_client=client,
    async_client=asynchronous.chat.completions,
    root_async_client=asynchronous,
    **MODEL,
)
checked.invoke(QUESTION)
list(checked.stream(QUESTION))
checked.bind(n=2, temperature=1).invoke(QUESTION)


async def ask():
    await checked.ainvoke(QUESTION)
    [_ async for _ in checked.astream(QUESTION)]


asyncio.run(ask())
accepted = client.checks.accepted + asynchronous.checks.accepted
print(json.dumps({"answer": message.content, "field": field, "asked": 5, "checked": accepted}))
