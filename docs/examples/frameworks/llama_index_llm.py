"""LlamaIndex: `python llama_index_llm.py BASE_URL VERIFIER`."""

import asyncio
import json
import sys

import toploc_client
from llama_index.core.llms import ChatMessage, LLMMetadata
from llama_index.llms.openai import OpenAI as Model

BASE_URL, VERIFIER = sys.argv[1:]
QUESTION = [ChatMessage(role="user", content="What is 17 + 25?")]


class Served(Model):
    """`llama_index.llms.openai` knows OpenAI's models alone; one of another name says what it is."""

    @property
    def metadata(self):
        return LLMMetadata(context_window=2048, num_output=32, is_chat_model=True, model_name=self.model)


MODEL = {"model": "toploc-mini", "temperature": 0, "max_tokens": 32}
plain = Served(api_base=BASE_URL, api_key="none", **MODEL)
reply = plain.chat(QUESTION)
field = {
    "response": "toploc_proofs" in reply.raw.model_extra,
    "stream": any("toploc_proofs" in part.raw.model_extra for part in plain.stream_chat(QUESTION)),
}

client = toploc_client.OpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
asynchronous = toploc_client.AsyncOpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
checked = Served(openai_client=client, async_openai_client=asynchronous, api_key="none", **MODEL)
checked.chat(QUESTION)
list(checked.stream_chat(QUESTION))


async def ask():
    await checked.achat(QUESTION)
    [_ async for _ in await checked.astream_chat(QUESTION)]


asyncio.run(ask())
accepted = client.checks.accepted + asynchronous.checks.accepted
print(json.dumps({"answer": reply.message.content, "field": field, "asked": 4, "checked": accepted}))
