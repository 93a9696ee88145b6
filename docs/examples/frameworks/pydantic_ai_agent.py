"""Pydantic AI: `python pydantic_ai_agent.py BASE_URL VERIFIER`."""

import asyncio
import json
import sys

import openai
import toploc_client
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

BASE_URL, VERIFIER = sys.argv[1:]
QUESTION, SETTINGS = "What is 17 + 25?", {"temperature": 0, "max_tokens": 32}


def agent(client):
    model = OpenAIChatModel("toploc-mini", provider=OpenAIProvider(openai_client=client))
    return Agent(model, model_settings=SETTINGS)


async def ask():
    plain = agent(openai.AsyncOpenAI(base_url=BASE_URL, api_key="none"))
    result = await plain.run(QUESTION)
    field = {"response": "toploc_proofs" in repr(result.all_messages())}

    client = toploc_client.AsyncOpenAI(base_url=BASE_URL, api_key="none", verifier=VERIFIER)
    checked = agent(client)
    await checked.run(QUESTION)
    async with checked.run_stream(QUESTION) as stream:
        await stream.get_output()
    print(json.dumps({"answer": result.output, "field": field, "asked": 2, "checked": client.checks.accepted}))


asyncio.run(ask())
