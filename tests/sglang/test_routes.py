"""Every route of SGLang's that generates carries proofs, whole and streamed, and their tokens are what is delivered."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from toploc.protocol import ToplocProofs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asking import Api
    from collector import Collector

    from toploc.receipts.keys import PublicKey
    from toploc.verifier.prefill import TransformersPrefill

    Verified = Callable[..., ToplocProofs]

ASKED = [{"role": "user", "content": "Tell me a story."}]
CHAT = {"messages": ASKED, "max_tokens": 70, "temperature": 1.0, "ignore_eos": True}
MESSAGE = {"messages": ASKED, "max_tokens": 40}
RESPONSE = {"input": "Tell me a story.", "max_output_tokens": 40}
GENERATE = {"max_new_tokens": 40, "temperature": 0, "ignore_eos": True}


def text_of(prefill: TransformersPrefill, token_ids: Any) -> str:
    return str(prefill.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def test_chat(api: Api, verified: Verified, prefill: TransformersPrefill) -> None:
    response = api.post("/v1/chat/completions", **CHAT)
    proofs = verified(response["toploc_proofs"], ASKED)
    assert text_of(prefill, proofs.choices[0].token_ids).strip() == response["choices"][0]["message"]["content"].strip()
    assert proofs.engine is not None
    assert proofs.engine.name == "sglang"
    assert proofs.engine.attention == "torch_native"
    assert proofs.sampler is None


def test_several_choices(api: Api, verified: Verified, prefill: TransformersPrefill) -> None:
    response = api.post("/v1/chat/completions", **CHAT, n=3)
    proofs = verified(response["toploc_proofs"], ASKED)
    assert len(proofs.choices) == 3
    assert all(choice.prompt is None for choice in proofs.choices), "choices of one prompt share its digest"
    for choice, said in zip(proofs.choices, response["choices"], strict=True):
        assert text_of(prefill, choice.token_ids).strip() == said["message"]["content"].strip()


@pytest.mark.parametrize("n", [1, 3])
def test_chat_stream(api: Api, verified: Verified, prefill: TransformersPrefill, n: int) -> None:
    events = api.stream("/v1/chat/completions", **CHAT, n=n)
    texts: dict[int, str] = defaultdict(str)
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    ends = [event for event in events if "toploc_proofs" in event]
    assert sorted(event["choices"][0]["index"] for event in ends) == list(range(n))
    proofs = verified(ends[-1]["toploc_proofs"], ASKED)
    assert {choice.index: text_of(prefill, choice.token_ids).strip() for choice in proofs.choices} == {
        index: text.strip() for index, text in texts.items()
    }


def test_completions_of_several_prompts(api: Api, verified: Verified, prefill: TransformersPrefill) -> None:
    prompts = ["Once upon", "What is", "The"]
    response = api.post("/v1/completions", prompt=prompts, n=2, max_tokens=40, temperature=1.0)
    proofs = verified(response["toploc_proofs"], *(prefill.tokenizer(prompt)["input_ids"] for prompt in prompts))
    assert len(proofs.choices) == 6
    for choice, said in zip(proofs.choices, response["choices"], strict=True):
        assert text_of(prefill, choice.token_ids) == said["text"]


def test_completions_of_token_ids(api: Api, verified: Verified) -> None:
    prompts = [[1, 20, 30, 40], [1, 50, 60]]
    verified(api.post("/v1/completions", prompt=prompts, max_tokens=40)["toploc_proofs"], *prompts)


def test_completion_stream(api: Api, verified: Verified, prefill: TransformersPrefill) -> None:
    events = api.stream("/v1/completions", prompt="Once upon", max_tokens=40)
    [end] = [event for event in events if "toploc_proofs" in event]
    verified(end["toploc_proofs"], prefill.tokenizer("Once upon")["input_ids"])


@pytest.mark.parametrize(("path", "body"), [("/v1/messages", MESSAGE), ("/v1/responses", RESPONSE)])
def test_other_apis(api: Api, verified: Verified, path: str, body: dict[str, Any]) -> None:
    verified(api.post(path, **body)["toploc_proofs"], ASKED)
    events = api.stream(path, **body)
    fields = [event.get("toploc_proofs") or event.get("response", {}).get("toploc_proofs") for event in events]
    [field] = [field for field in fields if field]
    verified(field, ASKED)


def test_generate(api: Api, verified: Verified) -> None:
    prompt = [1, 20, 30, 40]
    whole = api.post("/generate", input_ids=prompt, sampling_params=GENERATE)
    proofs = verified(whole["toploc_proofs"], prompt)
    assert list(proofs.choices[0].token_ids) == whole["output_ids"]
    assert api.http.get(f"/v1/toploc/proofs/{whole['meta_info']['id']}").json()["toploc_proofs"]
    for event in (events := api.stream("/generate", input_ids=prompt, sampling_params=GENERATE))[:-1]:
        assert "toploc_proofs" not in event
    assert verified(events[-1]["toploc_proofs"], prompt).choices[0].token_ids == proofs.choices[0].token_ids


def test_generate_for_several_prompts(api: Api, verified: Verified) -> None:
    prompts = [[1, 20, 30, 40], [1, 50, 60]]
    answers = api.post("/generate", input_ids=prompts, sampling_params=GENERATE)
    for prompt, answer in zip(prompts, answers, strict=True):
        [choice] = verified(answer["toploc_proofs"], prompt).choices
        assert list(choice.token_ids) == answer["output_ids"]
    ends = [event for event in api.stream("/generate", input_ids=prompts, sampling_params=GENERATE)
            if "toploc_proofs" in event]  # fmt: skip
    assert sorted(event["index"] for event in ends) == [0, 1]


def test_stop_strings_and_short_answers(api: Api, verified: Verified) -> None:
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    stopped = api.post("/v1/chat/completions", messages=messages, temperature=0, stop=["= 4"])
    assert stopped["choices"][0]["message"]["content"].endswith("25 ")
    verified(stopped["toploc_proofs"], messages)
    one = api.post("/v1/chat/completions", messages=messages, max_tokens=1)
    assert len(verified(one["toploc_proofs"], messages).choices[0].token_ids) == 1


def test_receipts(api: Api, signing: tuple[Path, PublicKey]) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGE), ("/v1/responses", RESPONSE)):
        response = api.post(path, **body)
        [choice] = ToplocProofs.model_validate(response["toploc_proofs"]).choices
        assert choice.receipt is not None
        assert choice.receipt.statement.key_id == signing[1].key_id


def test_options_of_a_request(api: Api) -> None:
    assert "toploc_proofs" not in api.post("/v1/chat/completions", **CHAT, toploc={"enabled": False})
    asked = api.post("/v1/chat/completions", **CHAT, toploc={"prompt_token_ids": True})
    assert asked["toploc_proofs"]["prompt"]["token_ids"]
    refused = api.http.post("/v1/chat/completions", json={"model": "toploc-mini", **CHAT, "toploc": {"colour": 1}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "toploc"


def test_a_client_cannot_set_the_tag(api: Api, verified: Verified) -> None:
    response = api.post("/v1/chat/completions", **CHAT, custom_params={"toploc": {"nonce": "x"}, "other": 1})
    verified(response["toploc_proofs"], ASKED)


@pytest.mark.parametrize("asked", ["default", "gpt-4"])
def test_an_answer_under_another_name_has_no_proofs(api: Api, asked: str) -> None:
    """SGLang answers under any name. A verifier would take it for another model's."""
    field = api.post("/v1/chat/completions", **{**CHAT, "model": asked})["toploc_proofs"]
    assert field["error"]["code"] == "model_name"
    assert "'toploc-mini'" in field["error"]["message"]


def test_spans(api: Api, collector: Collector) -> None:
    """Below the client's, as SGLang's own, and with the response's id."""
    traces = ["a" * 31 + "1", "a" * 31 + "2"]
    headers = [{"traceparent": f"00-{trace}-00000000000000ff-01"} for trace in traces]
    request = {"model": "toploc-mini", **CHAT}
    response = api.http.post("/v1/chat/completions", json=request, headers=headers[0]).json()
    api.http.post("/v1/toploc/verify", json={"request": request, "response": response}, headers=headers[1])
    wanted = [(traces[0], "toploc_proofs"), (traces[1], "toploc_verification")]
    for _ in range(100):
        spans = {(span.trace, span.name): span for span in list(collector.spans)}
        if all(key in spans for key in wanted):
            break
        time.sleep(0.1)
    assert {spans[key].parent for key in wanted} == {"00000000000000ff"}
    assert spans[wanted[0]].attributes["gen_ai.request.id"] == response["id"]
    assert len([trace for trace, _ in spans if trace == traces[0]]) > 1, "SGLang's own"


def test_metrics_and_description(api: Api) -> None:
    before = api.metric("toploc:proofs_total")
    api.post("/v1/chat/completions", **CHAT)
    assert api.metric("toploc:proofs_total") == before + 3
    assert api.metric("toploc:slots") == 32
    said = api.http.get("/v1/toploc").json()
    assert said["engine"]["name"] == "sglang"
    assert said["weights"]["sha256"]
