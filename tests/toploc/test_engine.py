"""What an engine says of itself is bounded, may be shown, and describes no other engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from toploc.engine import LONGEST, Engine, Facts, fact_of
from toploc.protocol import ToplocProofs
from toploc.report import Engines, Report

VLLM = Engine.of("vllm", "0.32.0", model_runner="v1", attention="CPU_ATTN", execution="eager", kv_cache="bfloat16")


@given(st.text())
def test_any_text_becomes_a_fact(text: str) -> None:
    said = Engine.of(text, "1", device=text)
    assert said.name == fact_of(text)
    assert said.name.isascii()
    assert said.name.isprintable()
    assert len(said.name) <= LONGEST
    assert Engine.model_validate_json(said.model_dump_json()) == said


def test_what_does_not_apply_is_not_said() -> None:
    said = Engine.of("vllm", "1", tensor_parallel=1, pipeline_parallel=2, quantization=None, attention="")
    assert said.model_dump() == {"name": "vllm", "version": "1", "pipeline_parallel": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": None},
        {"version": "x" * (LONGEST + 1)},
        {"device": "\x1b[2J"},
        {"device": "a\nb"},
        {"device": " a"},
        {"device": "\u202eb"},
        {"device": ["a"]},
        {"tensor_parallel": 0},
        {"tensor_parallel": 2**20},
        {"tensor_parallel": "many"},
    ],
)
def test_what_no_engine_says_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Engine.model_validate({"name": "vllm", "version": "1", **changes})
    field = {"dtype": "bfloat16", "model": "m", "error": {"code": "c", "message": "m"}}
    ToplocProofs.model_validate(field)
    ToplocProofs.model_validate({**field, "engine": {"name": "vllm", "version": "1", "of_tomorrow": {"a": [1]}}})
    with pytest.raises(ValidationError):
        ToplocProofs.model_validate({**field, "engine": {"name": "vllm", "version": "1", **changes}})


def test_facts_describe_engines_of_which_all_of_them_are_so() -> None:
    assert Facts().describe(None)
    assert Facts().describe(VLLM)
    assert Facts(name="vllm", execution="eager").describe(VLLM)
    assert Facts(name="vllm", quantization=None).describe(VLLM)
    assert not Facts(name="vllm", attention=None).describe(VLLM)
    assert not Facts(name="vllm").describe(None)
    assert not Facts(name="vllm", execution="FULL").describe(VLLM)
    assert not Facts(name="vllm", device="cpu").describe(VLLM)
    with pytest.raises(ValidationError):
        Facts.model_validate({"nome": "vllm"})


def test_a_report_has_both_sides() -> None:
    report = Report.of([], model="m", engines=Engines(prover=VLLM, verifier=Engine.of("transformers", "5")))
    lines = str(report).splitlines()
    assert lines[-2:] == [
        "  engine of the prover: vllm 0.32.0, CPU_ATTN, eager, model runner v1, KV cache bfloat16, by its own word",
        "  engine of the verifier: transformers 5",
    ]
    text = report.model_dump_json()
    assert json.loads(text)["engines"]["verifier"] == {"name": "transformers", "version": "5"}
    assert Report.model_validate_json(text) == report
    assert str(Report.of([], engines=Engines())).splitlines()[-2:] == [
        "  engine of the prover: it does not say",
        "  engine of the verifier: unknown",
    ]
