"""A vLLM that lacks something is refused, in one line that names it; the one that is installed lacks nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from reliance_table import listed
from toploc_proxy.engines.guards import load, method, require, require_members, require_parameters
from toploc_proxy.engines.reliance import Reliance
from vllm.sampling_params import SamplingParams

from toploc.errors import UnsupportedEngine

PARAMS = "vllm.sampling_params:SamplingParams"
CALL = Reliance.on("vllm.outputs:Class.call", "nobody", parameters="self rows", keywords="seed")


def on(places: str, **wanted: str) -> Reliance:
    return Reliance.on(places, "nobody", **wanted)


@pytest.mark.parametrize("reliance", listed(), ids=lambda one: f"{one.modules[0]}.{one.name}")
def test_the_installed_version_has_it(reliance: Reliance) -> None:
    require(reliance)


@pytest.mark.parametrize(
    ("reliance", "named"),
    [
        (on("vllm.gone:Thing"), "there is no Thing in vllm.gone"),
        (on("vllm.gone:Thing vllm.outputs:Thing"), "there is no Thing in vllm.gone or vllm.outputs"),
        (on("vllm.sampling_params.gone:Thing"), "there is no Thing in vllm.sampling_params.gone"),
        (on(f"{PARAMS}.gone"), "there is no SamplingParams.gone"),
        (on(PARAMS, members="seed shape colour"), "SamplingParams has no shape, colour"),
        (on("vllm.envs:", members="VLLM_GONE"), "vllm.envs has no VLLM_GONE"),
        (on("vllm.config:ModelConfig", members="dtype gone"), "ModelConfig has no gone"),
        (on("vllm.inputs.engine:TokensInput", members="type gone"), "TokensInput has no gone"),
        (on("vllm.v1.engine:EngineCoreOutput", members="request_id gone"), "EngineCoreOutput has no gone"),
        (on(f"{PARAMS}.clone", parameters="self deep"), r"SamplingParams.clone takes .*, not deep"),
        (on(f"{PARAMS}.from_optional", keywords="seed gone"), r"takes .*, not seed, gone"),
    ],
)
def test_what_is_missing_is_named(reliance: Reliance, named: str) -> None:
    with pytest.raises(
        UnsupportedEngine, match=rf"^toploc: vLLM \S+ is not one this version knows: .*{named}"
    ) as caught:
        require(reliance)
    assert "\n" not in str(caught.value)
    assert "docs/operations.md" in str(caught.value)


def test_the_first_place_that_has_it() -> None:
    assert load(on(f"vllm.gone:SamplingParams {PARAMS}")) is SamplingParams
    require(on(f"vllm.gone:SamplingParams {PARAMS}", members="seed"))


def test_what_is_done_without_is_not_asked_for() -> None:
    require(on("vllm.gone:Thing", without="left out"))


def test_a_module_that_cannot_be_imported_for_another_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A package that vLLM needs: its own message says which."""
    import vllm

    (tmp_path / "toploc_needs.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.setattr(vllm, "__path__", [*vllm.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        require(on("vllm.toploc_needs:Thing"))


def test_objects() -> None:
    one = on("vllm.outputs:RequestOutput", members="outputs", attributes="prompt_token_ids")
    require_members(SimpleNamespace(outputs=1, prompt_token_ids=2), one)
    with pytest.raises(UnsupportedEngine, match="RequestOutput has no prompt_token_ids"):
        require_members(SimpleNamespace(outputs=1), one)


def test_methods() -> None:
    one = on("vllm.outputs:RequestOutput.add", parameters="self next_output")
    assert method(SimpleNamespace(add=3), one) == 3
    with pytest.raises(UnsupportedEngine, match="SimpleNamespace has no add"):
        method(SimpleNamespace(), one)


@pytest.mark.parametrize("taken", ["self, rows, seed=None", "rows, seed", "rows, *, other, seed"])
def test_parameters(taken: str) -> None:
    require_parameters(eval(f"lambda {taken}: None"), CALL)


@pytest.mark.parametrize("taken", ["rows", "seed, rows", "**options", ""])
def test_changed_parameters(taken: str) -> None:
    with pytest.raises(UnsupportedEngine, match=r"Class.call takes .*, not rows, seed"):
        require_parameters(eval(f"lambda {taken}: None"), CALL)
