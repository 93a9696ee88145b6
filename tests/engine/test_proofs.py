"""The main job: proofs of a real vLLM engine, held against a transformers prefill of the same weights."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from models.corpus import exchange
from toploc.proofs.verdict import Verdict, verify_activations
from toploc.protocol import ChoiceProofs, ToplocProofs, num_chunks, token_ids_sha256

if TYPE_CHECKING:
    import openai

    from toploc.thresholds.bounds import Thresholds
    from toploc.verifier.prefill import TransformersPrefill

LENGTHS = [1, 31, 32, 33, 64, 70, 200]


def question(seed: int) -> list[dict[str, Any]]:
    """Another question than any that thresholds were calibrated on (`models/calibrate.py` uses small seeds)."""
    return [{"role": "user", "content": exchange(Random(1_000_000 + seed)).question}]


def ask(client: openai.OpenAI, messages: list[dict[str, Any]], **options: Any) -> tuple[Any, ToplocProofs]:
    response = client.chat.completions.create(
        model="toploc-mini", messages=messages, **{"extra_body": {"ignore_eos": True}, **options}
    )
    return response, ToplocProofs.model_validate(response.toploc_proofs)


def verify(
    prefill: TransformersPrefill,
    messages: list[dict[str, Any]],
    proofs: ToplocProofs,
    thresholds: Thresholds | None = None,
    shift: int = 0,
) -> Verdict:
    [choice] = proofs.choices
    prompt = prefill.render(messages)
    states = prefill.hidden_states(prompt, choice.token_ids)
    if shift:
        # Off by one: the state after token i, or the one before it, in place of the state that produced it.
        whole = prefill.hidden_states(prompt[:-1], [prompt[-1], *choice.token_ids, choice.token_ids[-1]])
        states = whole[1 + shift : 1 + shift + len(states)]
    return verify_activations(choice.proofs, states, thresholds=thresholds)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_chunk_verifies(
    client: openai.OpenAI, prefill: TransformersPrefill, calibrated: Thresholds, length: int, temperature: int
) -> None:
    messages = question(length)
    response, proofs = ask(client, messages, max_tokens=length, temperature=temperature)
    [choice] = proofs.choices
    assert response.usage.completion_tokens == len(choice.token_ids) == length
    assert len(choice.proofs) == num_chunks(length)
    assert proofs.prompt.num_tokens == response.usage.prompt_tokens
    assert proofs.prompt.sha256 == token_ids_sha256(prefill.render(messages))
    assert verify(prefill, messages, proofs).passed
    assert verify(prefill, messages, proofs, calibrated).passed


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_shift_by_one_token_is_rejected(
    client: openai.OpenAI, prefill: TransformersPrefill, length: int, shift: int
) -> None:
    messages = question(length)
    _, proofs = ask(client, messages, max_tokens=length, temperature=1)
    assert not verify(prefill, messages, proofs, shift=shift).passed


@pytest.mark.parametrize("length", LENGTHS)
def test_another_system_prompt_is_rejected(
    client: openai.OpenAI, prefill: TransformersPrefill, calibrated: Thresholds, length: int
) -> None:
    claimed = question(length)
    asked = [{"role": "system", "content": "Answer in capitals."}, *claimed]
    _, proofs = ask(client, asked, max_tokens=length, temperature=1)
    assert verify(prefill, asked, proofs, calibrated).passed
    assert not verify(prefill, claimed, proofs, calibrated).passed
    assert proofs.prompt.sha256 != token_ids_sha256(prefill.render(claimed))


@pytest.mark.parametrize("content", ["What is 17 + 25?", "What is the capital of France?", "List the months."])
def test_another_system_prompt_is_rejected_by_the_papers_thresholds(
    client: openai.OpenAI, prefill: TransformersPrefill, content: str
) -> None:
    """Of answers as they come; where the paper's bounds do not suffice on this model stands in docs/evidence.md."""
    claimed = [{"role": "user", "content": content}]
    asked = [{"role": "system", "content": "Answer in capitals."}, *claimed]
    _, proofs = ask(client, asked, temperature=0, extra_body={})
    assert verify(prefill, asked, proofs).passed
    assert not verify(prefill, claimed, proofs).passed


def test_an_altered_copy_is_rejected(
    impostor: openai.OpenAI, prefill: TransformersPrefill, calibrated: Thresholds
) -> None:
    for seed in range(10):
        messages = question(seed)
        _, proofs = ask(impostor, messages, max_tokens=128, temperature=seed % 2)
        assert not verify(prefill, messages, proofs, calibrated).passed


def test_eos_counts_as_a_token(client: openai.OpenAI, prefill: TransformersPrefill) -> None:
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    response, proofs = ask(client, messages, temperature=0, extra_body={})
    [choice] = proofs.choices
    assert response.choices[0].finish_reason == "stop"
    assert choice.token_ids[-1] == prefill.tokenizer.eos_token_id
    assert prefill.tokenizer.decode(choice.token_ids, skip_special_tokens=True) == response.choices[0].message.content
    assert verify(prefill, messages, proofs).passed


def test_streams_carry_the_same(client: openai.OpenAI, prefill: TransformersPrefill) -> None:
    messages = question(7)
    events = list(
        client.chat.completions.create(
            model="toploc-mini",
            messages=messages,
            max_tokens=70,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
    )
    carrying = [event for event in events if hasattr(event, "toploc_proofs")]
    assert [event.choices[0].finish_reason for event in carrying] == ["length"]
    streamed = ToplocProofs.model_validate(carrying[0].toploc_proofs)
    _, whole = ask(client, messages, max_tokens=70, temperature=0)
    assert [unsigned(choice) for choice in streamed.choices] == [unsigned(choice) for choice in whole.choices]
    assert streamed.prompt == whole.prompt
    assert verify(prefill, messages, streamed).passed


def unsigned(choice: ChoiceProofs) -> ChoiceProofs:
    """Receipts are for one answer each, and these are two."""
    return choice.model_copy(update={"receipt": None})


def test_completions(client: openai.OpenAI, prefill: TransformersPrefill) -> None:
    """Two prompts with two choices each, in one response and in one stream."""
    prompts = ["The capital of France", "one, two, three"]
    arguments: dict[str, Any] = {
        "model": "toploc-mini",
        "prompt": prompts,
        "n": 2,
        "max_tokens": 40,
        "temperature": 1,
        "extra_body": {"ignore_eos": True},
    }
    response = client.completions.create(**arguments)
    whole = ToplocProofs.model_validate(response.toploc_proofs)
    assert [choice.index for choice in whole.choices] == [choice.index for choice in response.choices] == [0, 1, 2, 3]
    parts = [
        ToplocProofs.model_validate(event.toploc_proofs)
        for event in client.completions.create(**arguments, stream=True)
        if hasattr(event, "toploc_proofs")
    ]
    assert [len(part.choices) for part in parts] == [1, 2, 3, 4]
    for proofs in [whole, *parts]:
        for choice in proofs.choices:
            prompt = prefill.tokenizer(prompts[choice.index // 2])["input_ids"]
            digest = choice.prompt or proofs.prompt
            assert digest.sha256 == token_ids_sha256(prompt)
            states = prefill.hidden_states(prompt, choice.token_ids)
            assert verify_activations(choice.proofs, states).passed


def test_rows_of_other_requests_are_not_mixed_up(client: openai.OpenAI, prefill: TransformersPrefill) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(seed: int) -> tuple[list[dict[str, Any]], ToplocProofs]:
        messages = question(seed)
        return messages, ask(client, messages, max_tokens=Random(seed).randrange(1, 120), temperature=1)[1]

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(one, range(48)))
    for messages, proofs in answers:
        assert verify(prefill, messages, proofs).passed
    # The check can fail: neighbours' proofs do not verify.
    for (messages, proofs), (_, other) in itertools.pairwise(answers):
        mixed = other.choices[0].model_copy(update={"token_ids": proofs.choices[0].token_ids})
        if num_chunks(len(mixed.token_ids)) == len(mixed.proofs):
            assert not verify(prefill, messages, proofs.model_copy(update={"choices": (mixed,)})).passed


def test_request_options(client: openai.OpenAI) -> None:
    messages = question(1)
    off = client.chat.completions.create(
        model="toploc-mini", messages=messages, max_tokens=4, extra_body={"toploc": {"enabled": False}}
    )
    assert not hasattr(off, "toploc_proofs")
    _, proofs = ask(client, messages, max_tokens=4, extra_body={"toploc": {"prompt_token_ids": True}})
    assert token_ids_sha256(proofs.prompt.token_ids) == proofs.prompt.sha256


def test_what_cannot_be_proven_says_so(client: openai.OpenAI) -> None:
    beam = client.completions.create(
        model="toploc-mini", prompt="one, two", max_tokens=8, extra_body={"use_beam_search": True, "n": 2}
    )
    assert beam.choices[0].text
    assert beam.toploc_proofs["error"]["code"] == "beam_search"
    echo = client.completions.create(model="toploc-mini", prompt="one, two", max_tokens=0, echo=True)
    assert echo.choices[0].text == "one, two"
    assert echo.toploc_proofs["error"]["code"] == "no_output"


def test_states_shifted_in_the_test_are_what_they_should_be(prefill: TransformersPrefill) -> None:
    """`verify(shift=…)` compares neighbours, not something that any verdict would reject."""
    prompt, token_ids = [5, 6, 7], [8, 9, 10]
    whole = prefill.hidden_states(prompt[:-1], [prompt[-1], *token_ids, token_ids[-1]])
    assert torch.equal(whole[1:4], prefill.hidden_states(prompt, token_ids))
