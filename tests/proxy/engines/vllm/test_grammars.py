"""Answers followed through vLLM's own grammar back ends, and through its bad words and allowed ids."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from toploc_proxy.engines.vllm import constraints as module
from toploc_proxy.engines.vllm import grammars
from toploc_proxy.engines.vllm.call import Call
from toploc_proxy.engines.vllm.constraints import Constraints, banned
from transformers import AutoTokenizer
from vllm.config import StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.sample.ops.bad_words import apply_bad_words

from toploc.tokens.masks import is_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc.tokens.masks import Constraint, Masks

    Follow = Callable[..., Constraint]

# vLLM's own call of xgrammar.
pytestmark = pytest.mark.filterwarnings("ignore:max_rollback_tokens is deprecated:DeprecationWarning")

MODEL = Path(__file__).parents[4] / "models" / "toploc-mini"
THOUGHTS = str(Path(__file__).parents[3] / "toploc" / "asked" / "thoughts.py")
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
EOS = TOKENIZER.eos_token_id
ONE_FIELD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def ids(text: str, *, ended: bool = True) -> list[int]:
    return [*TOKENIZER.encode(text, add_special_tokens=False), *([EOS] if ended else [])]


def follower(**engine: Any) -> Follow:
    """Follows token ids under sampling options, as a server with these options does."""
    arguments = AsyncEngineArgs(str(MODEL), enforce_eager=True, max_model_len=2048, max_num_seqs=8, **engine)
    config = arguments.create_engine_config()
    processor, constraints = InputProcessor(config), Constraints(config)

    def run(token_ids: list[int], alternative: int = 0, ended: bool | None = None, **options: Any) -> Constraint:
        prompt = {"type": "token", "prompt_token_ids": [5, 6]}
        asked = SamplingParams(**options)
        request = processor.process_inputs("r", prompt, asked, supported_tasks=("generate",))
        request.reasoning_ended = ended
        call = Call(prompt, asked, "r", None, request=request)
        assert alternative < constraints.alternatives(call)
        return asyncio.run(constraints.of(call, token_ids, alternative))

    return run


@pytest.fixture(scope="module")
def follow() -> Follow:
    return follower()


def left(masks: Masks | None, place: int) -> set[int]:
    assert masks is not None
    number = masks.processed[place]
    return {token for token in range(len(TOKENIZER)) if is_left(None if number < 0 else masks.rows[number], token)}


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ({"regex": "[ab]{3}"}, "aba"),
        ({"choice": ["a red house", "a sea"]}, "a sea"),
        ({"json": ONE_FIELD}, '{"a": 17}'),
        ({"json_object": True}, '{"x": [1, "y"]}'),
        ({"grammar": 'root ::= "one" | "two"'}, "two"),
    ],
)
def test_what_a_grammar_leaves(follow: Follow, grammar: dict[str, Any], text: str) -> None:
    options = {"structured_outputs": StructuredOutputsParams(**grammar)}
    whole = ids(text)
    found = follow(whole, **options)
    assert (found.forbidden, found.problem) == (None, "")
    assert found.masks is not None
    assert all(token in left(found.masks, place) for place, token in enumerate(whole))
    # It ends where the grammar does, and nowhere else.
    assert follow(ids(text[:-1]), **options).forbidden == (len(ids(text[:-1])) - 1, "structured_outputs")
    assert follow([*whole[:-1], ids("q")[0]], **options).forbidden == (len(whole) - 1, "structured_outputs")


def test_a_grammar_begins_after_the_reasoning() -> None:
    """As in vLLM: no token is masked up to the end of the reasoning, which the route may say is over."""
    options = {"structured_outputs": StructuredOutputsParams(regex="[ab]{3}")}
    ReasoningParserManager.import_reasoning_parser(THOUGHTS)
    follow = follower(reasoning_parser="thoughts", reasoning_parser_plugin=THOUGHTS)
    thought = ids("<tool_response>what a wind</tool_response>", ended=False)
    found = follow([*thought, *ids("aba")], **options)
    assert found.masks is not None
    assert (found.masks.raw[: len(thought)] == -1).all()
    assert (found.masks.raw[len(thought) :] >= 0).all()
    outside = follow([*thought, *ids("xyz")], **options)
    assert outside.forbidden == (len(thought), "structured_outputs")
    assert follow([*thought, *ids("aba")], ended=True, **options).forbidden == (0, "structured_outputs")
    assert follow(ids("aba"), ended=True, **options).masks is not None
    always = follower(
        reasoning_parser="thoughts",
        reasoning_parser_plugin=THOUGHTS,
        structured_outputs_config=StructuredOutputsConfig(enable_in_reasoning=True),
    )
    assert always([*thought, *ids("aba")], **options).forbidden == (0, "structured_outputs")


def test_back_ends_that_differ(follow: Follow) -> None:
    """A server keeps the back end that its first request chose, so an answer may have been masked by another."""
    options = {"structured_outputs": StructuredOutputsParams(json=ONE_FIELD)}
    two_fields = ids('{"a": 1, "b": 2}')
    assert follow(two_fields, **options).forbidden is not None
    assert follow(two_fields, alternative=1, **options).masks is not None
    neither = ids('{"a": "x"}')
    assert all(follow(neither, alternative=one, **options).forbidden is not None for one in (0, 1))


def test_bad_words_are_vllms(follow: Follow) -> None:
    words = [[7], [8, 9], [9, 9, 5], [3, 8, 9]]
    random = np.random.default_rng(4)
    answer = [int(token) for token in random.choice([3, 5, 7, 8, 9], size=300)]
    for place in range(len(answer)):
        logits = torch.zeros(1, 12)
        apply_bad_words(logits, {0: words}, [answer[:place]])
        assert set(torch.isinf(logits[0]).nonzero()[:, 0].tolist()) == set(banned(words, answer, place))


def test_bad_words_of_many_tokens(follow: Follow) -> None:
    said, other = ids("a little wind", ended=False), ids("a red wind", ended=False)
    assert len(ids("a little", ended=False)) > 1
    found = follow(said, bad_words=["a little"])
    assert found.forbidden == (len(ids("a little", ended=False)) - 1, "bad_words")
    assert follow(other, bad_words=["a little"]).forbidden is None
    assert follow(other, bad_words=["zebra"]).masks is None or left(follow(other, bad_words=["zebra"]).masks, 0)


def test_allowed_ids(follow: Follow) -> None:
    found = follow([5, 6, 5], allowed_token_ids=[5, 6, 900])
    assert left(found.masks, 1) == {5, 6, 900}
    assert found.masks is not None
    assert (found.masks.raw == -1).all()  # log-probabilities are taken before
    assert follow([5, 7], allowed_token_ids=[5, 6]).forbidden == (1, "allowed_token_ids")


def test_options_that_leave_no_token_accuse_nobody(follow: Follow) -> None:
    [only] = ids("z", ended=False)
    for found in (
        follow([5], allowed_token_ids=[only], bad_words=["z"]),
        follow(ids("z"), structured_outputs=StructuredOutputsParams(choice=["z"]), bad_words=["z"]),
    ):
        assert (found.forbidden, found.problem) == (None, "the request's options leave no token")


def test_no_constraint(follow: Follow) -> None:
    assert follow([5, 6]) == follow([5, 6], bad_words=[])
    assert follow([5, 6]).masks is None


def test_a_grammar_that_takes_too_long(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "COMPILE_SECONDS", -1.0)
    found = follow(ids("aba"), structured_outputs=StructuredOutputsParams(regex="[ab]{3,1000}[cd]{3,500}"))
    assert (found.forbidden, found.masks) == (None, None)
    assert found.problem == "the grammar does not compile within -1 s"


def test_an_answer_that_takes_too_long(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLLOW_SECONDS", -1.0)
    found = follow(ids("aba"), structured_outputs=StructuredOutputsParams(regex="[ab]{3}"))
    assert found.problem == "following the answer takes longer than -1 s"


def test_a_grammar_that_does_not_compile_accuses_nobody(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"structured_outputs": StructuredOutputsParams(structural_tag=TAG)}
    assert follow(ids("a"), **options).masks is not None
    # The other back end does not take it, so no server has masked by that.
    assert follow(ids("a"), alternative=1, **options).forbidden == (0, "structured_outputs")
    monkeypatch.setattr(grammars, "backends_of", lambda _: ["guidance", "xgrammar"])
    found = follow(ids("a"), **options)
    assert (found.forbidden, found.masks) == (None, None)
    assert found.problem.startswith("guidance does not compile the grammar: ")


TAG = '{"type": "structural_tag", "format": {"type": "const_string", "value": "a"}}'
