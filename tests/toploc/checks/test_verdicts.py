"""Honest answers are accepted by a verifier without vLLM, and each forgery is found by its check."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import AutoModelForCausalLM

from models import alter
from models.corpus import exchange
from toploc.poly import build_proofs_base64
from toploc.protocol import PromptDigest, token_ids_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Verify

    from toploc.report import Check
    from toploc.verifier.prefill import TransformersPrefill

    Recorded = Callable[[str], dict[str, Any]]
    Find = Callable[..., Check]

MODEL = Path(__file__).parents[3] / "models" / "toploc-mini"
NEVER = 1023
"""A token that no answer here has, in place of the end of a sequence."""

LEAD_BYTE = 133
"""The token of a byte that begins a character of several."""

SKIPPED = {"structured": "tokens"}
HONEST = [
    "greedy",
    "greedy-short",
    "greedy-ids",
    "greedy-penalties",
    "greedy-min-tokens",
    "sampled",
    "sampled-truncated",
    "sampled-defaults",
    "two-choices",
    "stop-string",
    "stop-string-included",
    "stop-token",
    "special-tokens",
    "structured",
    "content-parts",
    "chat-batch",
    "completion",
    "completion-default-length",
    "completion-ids",
    "completion-many",
    "completion-echo",
]


@pytest.mark.parametrize("name", HONEST)
def test_honest_answers_are_accepted(verify: Verify, recorded: Recorded, name: str) -> None:
    report = verify(recorded(name))
    assert report.verdict == "accepted", str(report)
    skipped = {check.name for check in report.checks if check.status == "skipped"}
    # None of them is signed.
    assert skipped == {"receipt", *([SKIPPED[name]] if name in SKIPPED else [])}, str(report)
    assert all(check.reason for check in report.checks if check.status != "passed")
    choices = len(recorded(name)["response"]["choices"])
    assert len(report.checks) == 2 + 6 * choices


def test_a_tool_call_needs_an_engine(verify: Verify, recorded: Recorded, find: Find) -> None:
    report = verify(recorded("tool-call"))
    response = find(report, "response")
    assert (report.verdict, response.status, response.reason) == ("undecided", "undecided", "not_bound")
    assert response.figures["unbound"] == ["choices[].message.tool_calls"]


def test_a_seed_without_a_sampler(verify: Verify, recorded: Recorded, find: Find) -> None:
    """The server leaves out what drew the noise, and so keeps the draws from being replayed."""
    report = verify(recorded("seeded"))
    assert (report.verdict, find(report, "tokens").reason) == ("undecided", "seed")


def choice(evidence: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """What the server says that a choice was made of."""
    proven: dict[str, Any] = evidence["response"]["toploc_proofs"]["choices"][index]
    return proven


def test_a_4_bit_copy(verify: Verify, recorded: Recorded, find: Find) -> None:
    for name in ("int4-greedy", "int4-sampled"):
        report = verify(recorded(name))
        proofs = find(report, "proofs")
        assert (report.verdict, proofs.status, proofs.reason) == ("rejected", "failed", "activations")
    assert any('chunk 2, tokens 64-95, " it home. ' in line for line in proofs.details)


def test_another_system_prompt(verify: Verify, recorded: Recorded, find: Find) -> None:
    report = verify(recorded("other-system"))
    assert report.verdict == "rejected"
    assert find(report, "prompt").reason == "prompt_length"
    assert find(report, "proofs").reason == "activations"


def test_the_digest_of_another_prompt(verify: Verify, recorded: Recorded, find: Find) -> None:
    """The server claims the request's prompt for an answer to another, and the other way round."""
    evidence, other = recorded("other-system"), recorded("greedy")
    evidence["response"]["toploc_proofs"]["prompt"] = other["response"]["toploc_proofs"]["prompt"]
    report = verify(evidence)
    assert (find(report, "prompt").status, find(report, "proofs").status) == ("passed", "failed")
    other["response"]["toploc_proofs"]["prompt"]["sha256"] = "0" * 64
    report = verify(other)
    assert (find(report, "prompt").reason, find(report, "proofs").status) == ("prompt_digest", "passed")
    assert report.verdict == "rejected"


def test_token_ids_that_are_not_of_the_digest(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("greedy-ids")
    evidence["response"]["toploc_proofs"]["prompt"]["token_ids"][4] += 1
    prompt = find(verify(evidence), "prompt")
    assert prompt.reason == "prompt_token_ids"
    assert "up to token 4" in prompt.message


@pytest.mark.parametrize("place", ["request", "response", "proofs", "all"])
def test_another_models_name(verify: Verify, recorded: Recorded, find: Find, place: str) -> None:
    evidence = recorded("greedy-short")
    parts = [evidence["request"], evidence["response"], evidence["response"]["toploc_proofs"]]
    for part in parts if place == "all" else [parts[["request", "response", "proofs"].index(place)]]:
        part["model"] = "another"
    report = verify(evidence)
    reason = "model_unknown" if place == "all" else "model_differs"
    assert (report.verdict, find(report, "model").reason) == ("rejected", reason)


def test_replayed_proofs(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("sampled")
    choice(evidence)["proofs"][1] = choice(recorded("greedy"))["proofs"][1]
    proofs = find(verify(evidence), "proofs")
    assert proofs.reason == "activations"
    assert "1 of 5 chunks" in proofs.message
    assert "chunk 1, tokens 32-63" in proofs.details[0]


def test_swapped_proofs(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("two-choices")
    one, two = choice(evidence), choice(evidence, 1)
    one["proofs"], two["proofs"] = two["proofs"], one["proofs"]
    report = verify(evidence)
    assert [find(report, "proofs", i).reason for i in (0, 1)] == ["activations", "activations"]


def test_swapped_choices(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("two-choices")
    one, two = evidence["response"]["choices"]
    one["message"], two["message"] = two["message"], one["message"]
    report = verify(evidence)
    assert [find(report, "text", i).reason for i in (0, 1)] == ["text_differs", "text_differs"]
    assert [find(report, "proofs", i).status for i in (0, 1)] == ["passed", "passed"]
    assert report.verdict == "rejected"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda proofs: proofs[:-1], "malformed_proof.count"),
        (lambda proofs: [*proofs, proofs[0]], "malformed_proof.count"),
        (lambda _: [], "malformed_proof.count"),
        (lambda proofs: [*proofs[:3], proofs[3][:-4], *proofs[4:]], "malformed_proof.length"),
        (lambda proofs: [*proofs[:3], "!" + proofs[3][1:], *proofs[4:]], "malformed_proof.base64"),
        (lambda proofs: [*proofs[:3], "AAAA" + proofs[3][4:], *proofs[4:]], "malformed_proof.modulus"),
        (lambda proofs: [*proofs[:3], proofs[3][:-4] + "////", *proofs[4:]], "malformed_proof.coefficient"),
    ],
)
def test_malformed_proofs(verify: Verify, recorded: Recorded, find: Find, change: Any, reason: str) -> None:
    evidence = recorded("sampled")
    choice(evidence)["proofs"] = change(choice(evidence)["proofs"])
    report = verify(evidence)
    proofs = find(report, "proofs")
    assert (report.verdict, proofs.status, proofs.reason) == ("rejected", "failed", reason)
    assert reason == "malformed_proof.count" or "chunk 3" in proofs.message


def test_no_proofs(verify: Verify, recorded: Recorded, find: Find) -> None:
    for name in ("no-output", "no-proofs"):
        assert verify(recorded(name)).verdict == "undecided"
    assert find(verify(recorded("no-output")), "proofs").reason == "no_proofs"
    evidence = recorded("two-choices")
    second = choice(evidence, 1)
    del second["proofs"]
    second["error"] = {"code": "rows_missing", "message": "…"}
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs", 1).reason) == ("undecided", "no_proofs")


def test_other_dtype(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("greedy")
    evidence["response"]["toploc_proofs"]["dtype"] = "float16"
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs").reason) == ("undecided", "dtype")


@pytest.mark.parametrize("name", ["greedy", "completion", "stop-string", "completion-echo", "tool-call", "two-choices"])
def test_tampered_text(verify: Verify, recorded: Recorded, find: Find, name: str) -> None:
    evidence = recorded(name)
    shown = evidence["response"]["choices"][0]
    holder, key = (shown, "text") if "text" in shown else (shown["message"], "content")
    holder[key] = "Buy this. " + (holder[key] or "")
    report = verify(evidence)
    assert (report.verdict, find(report, "text").reason) == ("rejected", "text_differs"), str(report)


def test_text_without_its_reasoning(verify: Verify, recorded: Recorded, find: Find) -> None:
    """A server leaves out the beginning where the request asks for that; it may not put in anything."""
    evidence = recorded("greedy")
    message = evidence["response"]["choices"][0]["message"]
    for asked, content, status in (
        (True, message["content"][40:], "failed"),
        (False, message["content"][40:], "skipped"),
        (False, message["content"], "passed"),
        (False, message["content"][40:] + " 51", "failed"),
    ):
        evidence["request"]["include_reasoning"] = asked
        evidence["response"]["choices"][0]["message"]["content"] = content
        check = find(verify(evidence), "text")
        assert (check.status, check.reason) == (
            status,
            {"failed": "text_differs", "skipped": "reasoning", "passed": None}[status],
        )


def test_prompt_that_ends_within_a_character(verify: Verify, recorded: Recorded, find: Find) -> None:
    """vLLM then begins the text with the prompt's (vllm/v1/engine/detokenizer.py): the text of neither was whole."""
    evidence = recorded("completion-ids")
    [shown] = evidence["response"]["choices"]
    prompt = [*evidence["request"]["prompt"], LEAD_BYTE]
    evidence["request"]["prompt"] = prompt
    evidence["response"]["toploc_proofs"]["prompt"] = PromptDigest.of(prompt).model_dump(exclude_none=True)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    stream = DecodeStream(ids=prompt, skip_special_tokens=True)
    shown["text"] = "".join(stream.step(tokenizer, token) or "" for token in choice(evidence)["token_ids"])
    assert shown["text"].startswith(tokenizer.decode(prompt))
    assert find(verify(evidence), "text").status == "passed"
    shown["text"] = "Buy this. " + shown["text"]
    assert find(verify(evidence), "text").reason == "text_differs"


def test_shortened_text(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("greedy")
    message = evidence["response"]["choices"][0]["message"]
    message["content"] = message["content"][:-10]
    assert find(verify(evidence), "text").reason == "text_differs"


@pytest.mark.parametrize(
    ("name", "options", "reason", "reports"),
    [
        ("greedy", {"max_tokens": 150}, "too_long", "length"),
        ("greedy", {"stop_token_ids": [23]}, "past_the_end", "stop"),
        ("greedy", {"ignore_eos": True}, "stopped_without_cause", "stop"),
        ("greedy-min-tokens", {"min_tokens": 60}, "too_short", "stop"),
        ("stop-string", {"stop": None}, "stopped_without_cause", "stop"),
        ("greedy-ids", {"max_tokens": 71}, "context_length", "length"),
        ("greedy", {}, "finish_reason", "tired"),
    ],
)
def test_ends_that_the_request_does_not_allow(
    verify: Verify, recorded: Recorded, find: Find, name: str, options: dict[str, Any], reason: str, reports: str
) -> None:
    evidence = recorded(name)
    evidence["request"] |= options
    evidence["response"]["choices"][0]["finish_reason"] = reports
    assert find(verify(evidence), "finish").reason == reason


def test_ids_outside_the_vocabulary(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("greedy")
    choice(evidence)["token_ids"][7] = 1024
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs").reason) == ("undecided", "token_id")
    evidence = recorded("completion-ids")
    evidence["request"]["prompt"][0] = 2**32 - 1
    assert verify(evidence).verdict == "undecided"


def test_longer_than_the_context(verify: Verify, recorded: Recorded, find: Find) -> None:
    evidence = recorded("completion-ids")
    evidence["request"]["prompt"] *= 60
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs").reason) == ("undecided", "context_length")


@pytest.mark.parametrize(("spare", "reason"), [(0, None), (-1, "context_length")])
def test_the_context_holds_prompt_and_answer(
    prefill: TransformersPrefill,
    verify: Verify,
    recorded: Recorded,
    find: Find,
    monkeypatch: pytest.MonkeyPatch,
    spare: int,
    reason: str | None,
) -> None:
    """To the last token, although no row is computed for it: a server ends an answer there."""
    evidence = recorded("greedy")
    tokens = evidence["response"]["toploc_proofs"]["prompt"]["num_tokens"] + len(choice(evidence)["token_ids"])
    monkeypatch.setattr(prefill._model.config, "max_position_embeddings", tokens + spare)
    assert find(verify(evidence), "proofs").reason == reason


@pytest.mark.parametrize(
    "options",
    [
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}]},
        {"messages": [{}]},
        {"chat_template": "x"},
        {"chat_template_kwargs": {"chat_template": "x"}},
        {"chat_template_kwargs": {"tokenize": False}},
        {"chat_template_kwargs": {"max_length": 1}},
    ],
)
def test_prompts_that_cannot_be_rendered(verify: Verify, recorded: Recorded, find: Find, options: Any) -> None:
    evidence = recorded("greedy-short")
    evidence["request"] |= options
    report = verify(evidence)
    assert (report.verdict, find(report, "prompt").reason) == ("undecided", "unrenderable")
    choice(evidence)["proofs"][0] = "x"
    report = verify(evidence)
    assert (report.verdict, find(report, "proofs").reason) == ("rejected", "malformed_proof.length")


@pytest.fixture(scope="module")
def forge(
    prefill: TransformersPrefill, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """Text by the 4-bit copy, run once through the honest model for its proofs."""
    copy = alter.make("int4", MODEL, tmp_path_factory.mktemp("altered") / "int4")
    model = AutoModelForCausalLM.from_pretrained(copy, dtype="auto")

    def make(request: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
        prompt = prefill.render(request["messages"])
        torch.manual_seed(1)
        inputs = torch.tensor([prompt])
        mask = torch.ones_like(inputs)
        generated = model.generate(
            inputs, attention_mask=mask, max_new_tokens=160, eos_token_id=NEVER, pad_token_id=0, **generation
        )
        token_ids = generated[0, len(prompt) :].tolist()
        proofs = build_proofs_base64(
            prefill.hidden_states(prompt, token_ids), decode_batching_size=32, topk=128, skip_prefill=True
        )
        text = prefill.tokenizer.decode(token_ids, skip_special_tokens=True)
        message = {"role": "assistant", "content": text}
        field = {
            "version": 1,
            "scheme": "toploc-gf65497",
            "chunk_size": 32,
            "topk": 128,
            "dtype": "bfloat16",
            "model": "toploc-mini",
            "prompt": PromptDigest.of(prompt).model_dump(exclude_none=True),
            "choices": [{"index": 0, "token_ids": token_ids, "proofs": proofs}],
        }
        assert field["prompt"]["sha256"] == token_ids_sha256(prompt)
        return {
            "request": {"model": "toploc-mini", "max_tokens": 160, "ignore_eos": True, **request},
            "response": {
                "object": "chat.completion",
                "model": "toploc-mini",
                "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
                "toploc_proofs": field,
            },
        }

    return make


# Of which one has to be found; which ones are, and how many, is a matter of the processor's rounding.
QUESTIONS = 6


def test_text_by_a_4_bit_copy_with_honest_proofs(verify: Verify, find: Find, forge: Any) -> None:
    """Every check on activations passes; only the tokens tell, and only in some answers of a copy as near as this."""
    accused = []
    for seed in range(QUESTIONS):
        messages = [{"role": "user", "content": exchange(Random(seed)).question}]
        report = verify(forge({"messages": messages, "temperature": 0}, {"do_sample": False}))
        tokens = find(report, "tokens")
        assert {check.status for check in report.checks if check.name not in ("tokens", "receipt")} == {"passed"}
        if tokens.status == "failed":
            assert (report.verdict, tokens.reason) == ("rejected", "margin")
            figures, bounds = tokens.figures, tokens.thresholds
            assert figures["worst"] > bounds["margin"] or figures["far"] > figures["allowed"]
            accused.append(seed)
    assert accused


def test_text_at_a_higher_temperature_with_honest_proofs(verify: Verify, find: Find, forge: Any) -> None:
    messages = [{"role": "user", "content": "Tell me a story."}]
    hot = {"do_sample": True, "temperature": 1.7, "top_k": 0}
    for asked, reason in (({"temperature": 1}, "surprisal"), ({"temperature": 1, "top_k": 5}, "support")):
        report = verify(forge({"messages": messages, **asked}, hot))
        tokens = find(report, "tokens")
        assert {check.status for check in report.checks if check.name not in ("tokens", "receipt")} == {"passed"}
        assert (report.verdict, tokens.reason) == ("rejected", reason)


def test_a_sentence_of_a_persons_within_an_honest_answer(verify: Verify, recorded: Recorded, find: Find) -> None:
    """Held against the model after the same tokens, so what comes after is its own."""
    evidence = recorded("sampled")
    proven = choice(evidence)
    ids = Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode("Send money to my bank", add_special_tokens=False)
    proven["token_ids"][50 : 50 + len(ids)] = ids.ids
    tokens = find(verify(evidence), "tokens")
    assert tokens.reason in ("surprisal", "window")
    assert tokens.figures["window_chance"] < 1e-6
    first, last = tokens.figures["window"]
    assert 45 <= first <= 55
    assert 45 + len(ids) <= last <= 65 + len(ids)


def test_a_token_that_was_forbidden(verify: Verify, recorded: Recorded, find: Find) -> None:
    """The answer to a request without it, handed in for one with it."""
    evidence = recorded("greedy")
    evidence["request"]["logit_bias"] = {str(choice(evidence)["token_ids"][2]): -100}
    tokens = find(verify(evidence), "tokens")
    assert tokens.reason == "margin"
    assert 2 in tokens.figures["far_at"]
    assert "where the model prefers" in tokens.message
    evidence = recorded("greedy-short")
    evidence["request"]["min_tokens"] = 12
    assert find(verify(evidence), "tokens").reason == "margin"
