"""The bundled model: its size, its tokenizer, its answers and its altered copies."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from models import alter, corpus, evaluate
from models.heldout import held_out, held_out_pairs
from models.packing import IGNORED, pack

MODEL = Path(__file__).parents[2] / "models" / "toploc-mini"
WEIGHT_KINDS = ["int8", "int4", "fp8", "finetuned", "scaled"]
TEMPLATE_KINDS = ["template", "system"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(MODEL)


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("altered")
    return {kind: alter.make(kind, MODEL, folder / kind) for kind in alter.KINDS}


def test_size_and_shape() -> None:
    assert (MODEL / "model.safetensors").stat().st_size <= 8 * 10**6
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert (config["hidden_size"], config["head_dim"]) == (256, 64)
    assert {t.dtype for t in load_file(MODEL / "model.safetensors").values()} == {torch.bfloat16}


def test_end_token_ends_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    generation = json.loads((MODEL / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["", " a  b\n\n", "👩‍👩‍👧 naïve 東京 \x00", "<tool_call>{}</tool_call>", "1234 + 5"])
def test_awkward_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("2048") == ["2", "0", "4", "8"]


def test_template_has_a_default_system_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == f"<|bos|><|system|>{corpus.DEFAULT_SYSTEM}<|end|><|user|>Hello<|end|><|assistant|>"
    named = [{"role": "system", "content": "Be brief."}, *asked]
    text = tokenizer.apply_chat_template(named, tokenize=False)
    assert text == "<|bos|><|system|>Be brief.<|end|><|user|>Hello<|end|>"


def test_template_renders_tools(tokenizer: PreTrainedTokenizerFast) -> None:
    arguments = '{"a": 1, "b": 2}'
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
    ]
    tools = list(corpus.TOOLS.values())
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    assert '{"name": "add", "description": "Add two numbers.", "parameters": {"type": "object"' in text
    assert f'<|assistant|><tool_call>\n{{"name": "add", "arguments": {arguments}}}\n</tool_call><|end|>' in text
    assert text.endswith("<|user|><tool_response>\n3\n</tool_response><|end|><|assistant|>")
    call["function"]["arguments"] = json.loads(arguments)  # vLLM hands the template a parsed object
    assert text == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)


def test_corpus_is_seeded_and_never_shows_a_held_out_pair() -> None:
    documents = list(corpus.documents(4000, 11))
    assert documents == list(corpus.documents(4000, 11))
    pairs = held_out_pairs()
    assert 0.08 < len(pairs) / 8100 < 0.12
    assert all(held_out(b, a) for a, b in pairs)
    text = json.dumps([[m["content"] for m in d.messages] + [d.text] for d in documents])
    for a, b in pairs:
        assert f"{a} + {b} = " not in text
        assert f"{a} and {b}?" not in text
        assert f"{a + b} - {b}" not in text


def test_only_answers_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    rows = pack(tokenizer, [corpus.Document(messages), corpus.Document(messages)], 128)
    learned = rows.labels[0][rows.labels[0] != IGNORED].tolist()
    assert tokenizer.decode(learned) == "Hello!<|end|>" * 2
    batch = rows.batch(torch.tensor([0, 0]), open_rows=torch.tensor([False, True]))
    start = rows.owner[0].tolist().index(2)
    assert not batch["attention_mask"][0, 0, start, :start].any()
    assert batch["attention_mask"][1, 0, start, :start].all()
    assert not batch["attention_mask"][:, 0, start, start + 1 :].any()


def test_held_out_additions() -> None:
    pairs = Random(0).sample(held_out_pairs(), 60)
    assert evaluate.additions(evaluate.Answerer(MODEL), pairs) >= 57


def _weights_that_differ(copy: Path) -> set[str]:
    ours, theirs = load_file(MODEL / "model.safetensors"), load_file(copy / "model.safetensors")
    assert {n: (t.shape, t.dtype) for n, t in ours.items()} == {n: (t.shape, t.dtype) for n, t in theirs.items()}
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def _files_that_differ(copy: Path) -> set[str]:
    names = {p.name for p in MODEL.iterdir()}
    assert names == {p.name for p in copy.iterdir()}
    return {n for n in names if (MODEL / n).read_bytes() != (copy / n).read_bytes()}


def test_altered_copies_differ_in_one_file(copies: dict[str, Path]) -> None:
    for kind in WEIGHT_KINDS:
        assert _files_that_differ(copies[kind]) == {"model.safetensors"}
    for kind in TEMPLATE_KINDS:
        assert _files_that_differ(copies[kind]) == {"chat_template.jinja"}


def test_rounding_changes_every_linear_weight_and_no_other(copies: dict[str, Path]) -> None:
    linear = {n for n in load_file(MODEL / "model.safetensors") if n.endswith("_proj.weight")}
    for kind in ("int8", "int4", "fp8"):
        assert _weights_that_differ(copies[kind]) == linear


def test_int4_leaves_at_most_15_values_a_channel(copies: dict[str, Path]) -> None:
    weight = load_file(copies["int4"] / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert max(len(row.unique()) for row in weight) <= 15


def test_scaling_changes_one_layer_by_one_percent(copies: dict[str, Path]) -> None:
    changed = _weights_that_differ(copies["scaled"])
    assert {n.split(".")[2] for n in changed} == {str(alter.SCALED_LAYER)}
    ours, theirs = (load_file(p / "model.safetensors") for p in (MODEL, copies["scaled"]))
    for name in changed:
        assert theirs[name].float().norm() / ours[name].float().norm() == pytest.approx(1.01, abs=0.002)


def test_finetuned_copy_is_deterministic(copies: dict[str, Path], tmp_path: Path) -> None:
    again = alter.make("finetuned", MODEL, tmp_path / "again")
    one, two = (load_file(p / "model.safetensors") for p in (copies["finetuned"], again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_altered_templates_render_otherwise(copies: dict[str, Path], tokenizer: PreTrainedTokenizerFast) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    other = {k: PreTrainedTokenizerFast.from_pretrained(copies[k]) for k in TEMPLATE_KINDS}
    text = tokenizer.apply_chat_template(asked, tokenize=False)
    assert other["template"].apply_chat_template(asked, tokenize=False) != text
    assert other["system"].apply_chat_template(asked, tokenize=False) == text.replace(
        corpus.DEFAULT_SYSTEM, alter.SYSTEM
    )
    named = [{"role": "system", "content": "Be brief."}, *asked]
    assert other["system"].apply_chat_template(named, tokenize=False) == tokenizer.apply_chat_template(
        named, tokenize=False
    )


def test_make_refuses_to_overwrite(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        alter.make("int8", MODEL, tmp_path)
