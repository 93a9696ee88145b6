"""What a request can ask of the engine beside text, each against the prefill of another engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models import corpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from asking import Api

    from toploc.protocol import ToplocProofs
    from toploc.verifier.prefill import TransformersPrefill

SUM = [{"role": "user", "content": "What is 17 + 25?"}]
TOOLS = list(corpus.TOOLS.values())
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "colour": {"enum": ["red", "blue"]}},
    "required": ["number", "colour"],
    "additionalProperties": False,
}


def test_prefix_cache(api: Api, prefill: TransformersPrefill, verified: Callable[..., ToplocProofs]) -> None:
    """The second request computes no more of the prompt than its last part, the third answers more of it anew."""
    messages = [{"role": "user", "content": "one two three four five six seven " * 60}]
    assert len(prefill.render(messages)) > 400
    first = api.chat(messages, temperature=0, ignore_eos=True, max_tokens=200)
    hits = api.metric("vllm:prefix_cache_hits_total")
    second = api.chat(messages, temperature=0, ignore_eos=True, max_tokens=200)
    assert api.metric("vllm:prefix_cache_hits_total") - hits >= 384
    whole = verified(first["toploc_proofs"], messages)
    verified(second["toploc_proofs"], messages)
    # A prompt that goes on with what was generated: cached are positions that were sampled, not prefilled.
    prompt = [*prefill.render(messages), *whole.choices[0].token_ids]
    hits = api.metric("vllm:prefix_cache_hits_total")
    third = api.post("/v1/completions", prompt=prompt, temperature=1, ignore_eos=True, max_tokens=40)
    assert api.metric("vllm:prefix_cache_hits_total") - hits >= 512
    verified(third["toploc_proofs"], prompt)


@pytest.mark.parametrize("n", [1, 2])
def test_logprobs(api: Api, verified: Callable[..., ToplocProofs], n: int) -> None:
    response = api.chat(
        SUM, n=n, temperature=1, ignore_eos=True, max_tokens=40, logprobs=True, top_logprobs=3, prompt_logprobs=2
    )
    proofs = verified(response["toploc_proofs"], SUM)
    assert len(response["prompt_logprobs"]) == proofs.prompt.num_tokens
    for choice in response["choices"]:
        assert len(choice["logprobs"]["content"]) == len(proofs.choices[choice["index"]].token_ids) == 40


def test_structured_output(api: Api, verified: Callable[..., ToplocProofs]) -> None:
    schema = {"name": "pair", "schema": SCHEMA, "strict": True}
    response = api.chat(
        SUM, temperature=0, max_tokens=200, response_format={"type": "json_schema", "json_schema": schema}
    )
    assert set(json.loads(response["choices"][0]["message"]["content"])) == {"number", "colour"}
    verified(response["toploc_proofs"], SUM)


def test_structured_output_of_many_choices(api: Api, verified: Callable[..., ToplocProofs]) -> None:
    texts = ["a red house that stands by the sea, far from any town", "a blue house in the mountains, close to a wood"]
    response = api.chat(SUM, n=4, temperature=1, structured_outputs={"choice": texts})
    assert {choice["message"]["content"] for choice in response["choices"]} <= set(texts)
    assert len(verified(response["toploc_proofs"], SUM).choices) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(api: Api, verified: Callable[..., ToplocProofs], stream: bool) -> None:
    """The call is cut out of the text, and streamed in parts; its result comes back in a second request."""
    body: dict[str, Any] = {"messages": SUM, "tools": TOOLS, "temperature": 0}
    if stream:
        events = api.stream("/v1/chat/completions", **body)
        deltas = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls") or ()]
        name = "".join(delta["function"].get("name") or "" for delta in deltas)
        arguments = "".join(delta["function"].get("arguments") or "" for delta in deltas)
        [field] = [event["toploc_proofs"] for event in events if "toploc_proofs" in event]
        assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        response = api.post("/v1/chat/completions", **body)
        [choice] = response["choices"]
        [call] = choice["message"]["tool_calls"]
        name, arguments, field = call["function"]["name"], call["function"]["arguments"], response["toploc_proofs"]
        assert choice["finish_reason"] == "tool_calls"
    assert (name, json.loads(arguments)) == ("add", {"a": 17, "b": 25})
    verified(field, SUM, tools=TOOLS)
    call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": arguments}}
    answered = [
        *SUM,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "42"},
    ]
    response = api.chat(answered, tools=TOOLS, temperature=0)
    assert "42" in response["choices"][0]["message"]["content"]
    # vLLM hands the arguments to the template as an object.
    call["function"]["arguments"] = json.loads(arguments)
    verified(response["toploc_proofs"], answered, tools=TOOLS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_completions_of_a_list(
    api: Api,
    prefill: TransformersPrefill,
    verified: Callable[..., ToplocProofs],
    echo: bool,
    as_tokens: bool,
    stream: bool,
) -> None:
    """Three prompts of two choices; with echo, the text begins with the prompt and the proofs after it."""
    texts = ["The capital of France", "one, two, three", "12 + 13"]
    prompts = [prefill.tokenizer(text)["input_ids"] for text in texts]
    body: dict[str, Any] = {
        "prompt": prompts if as_tokens else texts,
        "n": 2,
        "echo": echo,
        "temperature": 1,
        "ignore_eos": True,
        "max_tokens": 40,
    }
    if stream:
        events = api.stream("/v1/completions", **body)
        fields = [event["toploc_proofs"] for event in events if "toploc_proofs" in event][-1:]
        generated = [""] * 6
        for event in events:
            for choice in event["choices"]:
                generated[choice["index"]] += choice["text"]
    else:
        response = api.post("/v1/completions", **body)
        fields = [response["toploc_proofs"]]
        generated = [choice["text"] for choice in response["choices"]]
    choices = {}
    for field in fields:
        indices = [choice["index"] for choice in field["choices"]]
        of = prompts if len(indices) == 6 else [prompts[indices[0] // 2]]
        choices |= {choice.index: choice for choice in verified(field, *of).choices}
    assert sorted(choices) == list(range(6))
    for index, choice in choices.items():
        assert generated[index].startswith(texts[index // 2]) == echo
        decoded = prefill.tokenizer.decode(choice.token_ids, skip_special_tokens=True)
        # A character that an answer breaks off in is left out at its end.
        whole = [text.replace("\N{REPLACEMENT CHARACTER}", "") for text in (generated[index], decoded)]
        assert whole[0].endswith(whole[1])


def test_echo_with_logprobs(api: Api, verified: Callable[..., ToplocProofs]) -> None:
    prompt = list(range(40, 120))
    response = api.post("/v1/completions", prompt=prompt, echo=True, logprobs=2, max_tokens=33, ignore_eos=True)
    assert len(response["choices"][0]["logprobs"]["tokens"]) == 80 + 33
    verified(response["toploc_proofs"], prompt)
