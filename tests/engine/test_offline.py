"""`toploc_proxy.offline.LLM`: vLLM's `LLM` with proofs in its outputs, and rollouts verified by the thousand."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from toploc.protocol import ToplocProofs
from toploc.verifier.transformers import TransformersVerifier

with warnings.catch_warnings():
    # vLLM's and torch's own, which are errors in tests.
    warnings.simplefilter("ignore")
    import vllm
    from toploc_proxy.engines.vllm.offline.answers import answer, reports_on
    from toploc_proxy.offline import LLM, Rollout
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toploc.report import Report
    from toploc.thresholds.bounds import Thresholds
    from toploc.verifier.prefill import TransformersPrefill

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
pytestmark = pytest.mark.filterwarnings("ignore")
SEQUENCES = 8
SLOTS = 2 * SEQUENCES
GREEDY = SamplingParams(temperature=0, max_tokens=40)
SAMPLED = SamplingParams(n=3, temperature=1, max_tokens=70)
STORY = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    options: dict[str, Any] = {"max_model_len": 2048, "kv_cache_memory_bytes": 256 * 2**20, "enforce_eager": True}
    # As people write it, and one more than is needed: a restricted list of plugins.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "lora_filesystem_resolver")
        made = LLM(str(MODEL), max_num_seqs=SEQUENCES, served_model_name="toploc-mini", **options)
        assert os.environ["VLLM_PLUGINS"] == "lora_filesystem_resolver"
    assert "TOPLOC_SETTINGS" not in os.environ
    with made:
        yield made
    assert not [thread.name for thread in threading.enumerate() if thread.name == "toploc-offline"]


def sums(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"What is {place} + {count}?"}] for place in range(count)]


def rollouts(llm: LLM, messages: list[Any], params: SamplingParams) -> list[Rollout]:
    outputs = llm.chat(messages, params, use_tqdm=False)
    return [Rollout.of(output, place, params) for output in outputs for place in range(params.n)]


def check_all(outputs: list[Any], verified: Callable[..., ToplocProofs]) -> None:
    """Each choice's own proofs against another engine's prefill."""
    for output in outputs:
        for choice in output.outputs:
            proofs = choice.toploc_proofs
            assert isinstance(proofs, ToplocProofs)
            assert proofs.model == "toploc-mini"
            [made] = verified(proofs.model_dump(mode="json", exclude_none=True), output.prompt_token_ids).choices
            assert list(made.token_ids) == list(choice.token_ids)


def test_it_is_vllms(llm: LLM) -> None:
    assert isinstance(llm, vllm.LLM)
    assert issubclass(LLM, vllm.LLM)


def test_generate_and_chat(llm: LLM, verified: Callable[..., ToplocProofs]) -> None:
    check_all(llm.generate(["one, two", {"prompt_token_ids": [5, 6, 7]}], GREEDY, use_tqdm=False), verified)
    check_all(llm.chat(STORY, SAMPLED, use_tqdm=False), verified)
    ends = [SamplingParams(temperature=0, max_tokens=99, stop=["e"]), SamplingParams(max_tokens=1)]
    check_all(llm.generate(["January", "one, two"], ends, use_tqdm=False), verified)


def test_a_cached_prefix(llm: LLM, verified: Callable[..., ToplocProofs]) -> None:
    long = [{"role": "user", "content": "Tell me a story about the numbers. " * 20}]
    first, second = llm.chat(long, GREEDY, use_tqdm=False) + llm.chat(long, GREEDY, use_tqdm=False)
    assert second.num_cached_tokens > 0
    check_all([first, second], verified)
    assert first.outputs[0].toploc_proofs == second.outputs[0].toploc_proofs


def test_more_answers_than_a_worker_holds(llm: LLM) -> None:
    """Their prompts are rendered while the engine runs, and it is done with many before they are looked at."""
    outputs = llm.chat(sums(100 * SLOTS), SamplingParams(temperature=0, max_tokens=3), use_tqdm=False)
    assert [output.request_id for output in outputs] == sorted((o.request_id for o in outputs), key=int)
    assert Counter(o.outputs[0].toploc_proofs.error for o in outputs) == {None: 100 * SLOTS}
    assert llm.chat(sums(2), GREEDY, use_tqdm=False)[0].outputs[0].toploc_proofs.error is None


def test_more_choices_than_a_worker_holds(llm: LLM) -> None:
    [output] = llm.generate("one, two", SamplingParams(n=3 * SLOTS, max_tokens=3), use_tqdm=False)
    errors = Counter(choice.toploc_proofs.error and choice.toploc_proofs.error.code for choice in output.outputs)
    assert errors == {None: SLOTS, "capture_slots_exhausted": 2 * SLOTS}


def test_a_batch_that_fails_leaves_nothing_behind(llm: LLM) -> None:
    def prompts() -> list[Any]:
        return [{"prompt_token_ids": [5, 6, 7 + place]} for place in range(3 * SLOTS)]

    with pytest.raises(VLLMValidationError, match="2048"):
        llm.generate([*prompts(), {"prompt_token_ids": [5] * 3000}], GREEDY, use_tqdm=False)
    outputs = llm.generate(prompts(), GREEDY, use_tqdm=False)
    assert len(outputs) == 3 * SLOTS
    assert all(output.outputs[0].toploc_proofs.error is None for output in outputs)


def test_verified_between_what_was_enqueued(llm: LLM, verified: Callable[..., ToplocProofs]) -> None:
    made = rollouts(llm, sums(4), GREEDY)
    llm.enqueue(["one, two"] * 3, GREEDY, use_tqdm=False)
    assert [report.verdict for report in llm.verify(made)] == ["accepted"] * 4
    outputs = llm.wait_for_completion(use_tqdm=False)
    assert len(outputs) == 3
    check_all(outputs, verified)


def reasons(report: Report) -> set[str | None]:
    return {check.reason for check in report.checks if check.status == "failed"}


def test_honest_rollouts_in_bulk(llm: LLM) -> None:
    made = rollouts(llm, sums(100), SAMPLED)
    reports = llm.verify(made)
    assert len(reports) == 300
    # The check on sampled tokens has a rate of false alarms.
    failed = {(check.name, check.choice) for report in reports for check in report.checks if check.status == "failed"}
    assert failed <= {("tokens", 0)}
    assert sum(report.accepted for report in reports) >= 297
    # As trainers keep them, and without the options that they were asked for with.
    stored = [(each.prompt_token_ids, each.token_ids, each.proofs.to_json()) for each in made[:5]]
    for report in llm.verify(stored):
        assert report.accepted
        assert "tokens (options)" in report.coverage


def test_what_is_not_what_it_says(llm: LLM) -> None:
    endless = {"temperature": 0, "ignore_eos": True}
    [honest] = rollouts(llm, [STORY], SamplingParams(max_tokens=40, **endless))
    [other] = rollouts(llm, sums(1), GREEDY)
    last = [*honest.token_ids[:-1], honest.token_ids[-1] + 1]
    wrong = {
        "another token than was proven": replace(honest, token_ids=last),
        "another prompt": replace(honest, prompt_token_ids=other.prompt_token_ids),
        "others' proofs": replace(honest, proofs=with_tokens(other, honest.token_ids)),
        "cut short": replace(honest, sampling_params=SamplingParams(max_tokens=400, **endless)),
        "another reason to end": replace(honest, finish_reason="stop"),
        "no proofs": replace(honest, proofs="not JSON"),
        "no token of the model's": replace(honest, proofs=with_tokens(honest, [2**31] * len(honest.token_ids))),
    }
    reports = dict(zip(wrong, llm.verify(wrong.values()), strict=True))
    assert not [name for name, report in reports.items() if report.accepted], reports
    assert reasons(reports["another token than was proven"]) == {"response_differs"}
    assert reasons(reports["another prompt"]) >= {"prompt_length", "activations"}
    assert reasons(reports["others' proofs"]) >= {"activations"}
    assert reasons(reports["cut short"]) == {"cut_short"}
    assert reasons(reports["another reason to end"]) == {"response_differs"}
    assert reasons(reports["no proofs"]) == {"malformed"}
    assert "token_id" in {check.reason for check in reports["no token of the model's"].checks}


def with_tokens(of: Rollout, token_ids: Any) -> dict[str, Any]:
    """Its proofs under other tokens and the prompt that these had."""
    field = of.proofs.model_dump(mode="json", exclude_none=True)  # type: ignore[union-attr]
    count = len(token_ids)
    proofs = (field["choices"][0]["proofs"] * count)[: -(-count // 32)]
    field["choices"] = [{**field["choices"][0], "token_ids": list(token_ids), "proofs": proofs}]
    return field


def test_tokens_that_the_options_do_not_give(llm: LLM) -> None:
    """Sampled at a high temperature, and said to be greedy."""
    [made] = rollouts(llm, [STORY], SamplingParams(temperature=1.5, max_tokens=64, ignore_eos=True))
    greedy = replace(made, sampling_params=SamplingParams(temperature=0, max_tokens=64, ignore_eos=True))
    [honest, report] = llm.verify([made, greedy])
    assert honest.verdict == "accepted"
    assert reasons(report) == {"margin"}


CONSTRAINED: dict[str, dict[str, Any]] = {
    "a grammar": {"structured_outputs": StructuredOutputsParams(regex=r"[a-z]{3,8}( [a-z]{2,8}){2,12}\. [0-9]{1,3}")},
    "a schema": {"structured_outputs": StructuredOutputsParams(json={"type": "object", "properties": {"a": {}}})},
    "bad words": {"bad_words": ["the", "wind", "a little"]},
    "allowed ids": {"allowed_token_ids": list(range(2, 400))},
}


def test_constrained_rollouts_are_held_to_their_tokens(llm: LLM) -> None:
    """As a server holds them: by the masks that they were drawn under."""
    for name, options in CONSTRAINED.items():
        params = SamplingParams(temperature=0, max_tokens=40, **options)
        [made] = rollouts(llm, [STORY], params)
        # Parameters as they come of a file or another process, which no engine has looked at.
        fresh = SamplingParams(temperature=0, max_tokens=40, **CONSTRAINED[name])
        [report] = llm.verify([replace(made, sampling_params=fresh)])
        assert report.verdict == "accepted", (name, report)
        assert [(c.status, c.reason) for c in report.checks if c.name == "tokens"] == [("passed", None)], name
        [free] = rollouts(llm, [STORY], GREEDY)
        if name != "bad words":
            [report] = llm.verify([replace(free, sampling_params=fresh)])
            assert reasons(report) >= {"forbidden"}, (name, report)


def test_reports_that_nobody_waits_for(llm: LLM) -> None:
    made = rollouts(llm, sums(40), GREEDY)
    reports = llm.verify_each(iter(made))
    assert next(reports)[1].accepted
    reports.close()
    assert [place for place, _ in sorted(llm.verify_each(made))] == list(range(40))
    assert [report.verdict for report in llm.verify(made)] == ["accepted"] * 40


@pytest.mark.parametrize("route", ["chat", "completion"])
def test_answers_as_a_server_gives_them(
    llm: LLM, route: Literal["chat", "completion"], prefill: TransformersPrefill, calibrated: Thresholds
) -> None:
    """`toploc generate` keeps these as evidence: all leaves of the response are what the tokens say."""
    asks: dict[str, Any] = {"messages": STORY} if route == "chat" else {"prompt": "one, two"}
    options = ({"temperature": 0, "max_tokens": 40}, {"temperature": 0.8, "top_p": 0.95, "max_tokens": 33})
    bodies = [{"model": "toploc-mini", "ignore_eos": True, **asks, **each} for each in options]
    verifier = TransformersVerifier(prefill, names=["toploc-mini"], thresholds=calibrated, context_length=2048)
    for body, response in zip(bodies, answer(llm, route, bodies), strict=True):
        report = verifier.verify(json.dumps({"request": body, "response": response}))
        assert report.verdict == "accepted", str(report)


def test_evidence_is_held_against_its_request_and_its_text(llm: LLM) -> None:
    """As `toploc validate` does by vLLM: what a server would rehearse is found by the checks without one."""
    options = {"model": "toploc-mini", "temperature": 0, "max_tokens": 40, "ignore_eos": True}
    chats = [{**options, "messages": messages} for messages in [STORY, *sums(2)]]
    texts = [{**options, "prompt": "one, two"}]
    made = [*zip(chats, answer(llm, "chat", chats), strict=True)]
    made += zip(texts, answer(llm, "completion", texts), strict=True)
    (asked, response), (other, _), *_ = made
    said = json.loads(json.dumps(response))
    said["choices"][0]["message"]["content"] += " Buy now."
    swapped = json.loads(json.dumps(response))
    swapped["toploc_proofs"]["choices"][0]["proofs"].reverse()
    wrong = [(other, response), (asked, said), (asked, swapped), (asked, {**response, "toploc_proofs": 7})]
    items = [json.dumps({"request": request, "response": given}).encode() for request, given in [*made, *wrong]]
    reports = list(reports_on(llm, [*items, b"{"]))
    assert [report.verdict for report in reports] == ["accepted"] * 4 + ["rejected"] * 4 + ["undecided"], reports
    for name, report in zip(["prompt", "text", "proofs", "evidence"], reports[4:], strict=False):
        assert name in {check.name for check in report.checks if check.status == "failed"}, report
    assert [check.reason for check in reports[8].checks] == ["malformed"]
