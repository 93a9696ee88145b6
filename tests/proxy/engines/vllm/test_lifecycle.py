"""What a worker refuses before and after it loads a model, and when it starts to answer."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toploc_proxy.engines.vllm.runners import lifecycle, refused
from toploc_proxy.engines.vllm.runners.refused import refuse_configuration, refuse_model
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, Settings
from vllm.config import ModelConfig
from vllm.models.deepseek_v41.decoder_replay_layers import DecoderReplayLayers
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from toploc.errors import UnsupportedEngine

MODEL = str(Path(__file__).parents[4] / "models" / "toploc-mini")


def config(**options: Any) -> Any:
    speculation = options.pop("speculative_config", None)
    return SimpleNamespace(model_config=ModelConfig(MODEL, **options), speculative_config=speculation)


def refusal(config: Any) -> str:
    with pytest.raises(UnsupportedEngine) as caught:
        refuse_configuration(config)
    message = str(caught.value)
    assert message.startswith("toploc: ")
    assert "\n" not in message
    return message


def test_the_bundled_model_is_not_refused() -> None:
    refuse_configuration(config())
    refuse_configuration(config(speculative_config=SimpleNamespace(rejection_sample_method="standard")))


def test_models_whose_states_have_no_order_or_two_places() -> None:
    assert "diffusion" in refusal(config(hf_overrides={"canvas_length": 32}))
    kimi = config()
    kimi.model_config.model_arch_config.architectures = ["KimiK3ForConditionalGeneration"]
    assert "KimiK3ForConditionalGeneration" in refusal(kimi)


def test_what_chooses_tokens_that_the_model_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'fly'" in refusal(config(speculative_config=SimpleNamespace(rejection_sample_method="fly")))
    assert "--logits-processors" in refusal(config(logits_processors=["a.b:C"]))

    def installed(group: str) -> list[SimpleNamespace]:
        assert group == refused.LOGITS_PROCESSORS
        return [SimpleNamespace(name="mine", value="package.module:Class")]

    monkeypatch.setattr(refused, "entry_points", installed)
    assert "package.module:Class" in refusal(config())
    refuse_configuration(config(runner="pooling", convert="embed"))


def test_a_model_that_trims_its_prefills() -> None:
    """Rows before the last window are zero: a verification would compare those with honest proofs."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    model[0].decoder_replay_layers = None
    refuse_model(model)
    model[0].decoder_replay_layers = DecoderReplayLayers(128, lambda: (), lambda: None, set(), "")
    with pytest.raises(UnsupportedEngine, match="--no-swa-bounded-replay"):
        refuse_model(model)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A runner class as `wrap_lifecycle` leaves it, whose methods do nothing."""
    monkeypatch.setattr(lifecycle, "_take_memory", lambda *_: 0)
    monkeypatch.setattr(lifecycle, "_captures", lambda _: True)
    monkeypatch.setattr(lifecycle, "_start", lambda *_: "started")
    monkeypatch.setattr(lifecycle, "watch_weights", lambda *_: None)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, Settings(channel="/none", secret="s" * 32).model_dump_json())

    class Runner:
        def __init__(self, vllm_config: Any, device: str) -> None:
            self.vllm_config, self.device = vllm_config, device

        def load_model(self) -> None:
            pass

        def get_model(self) -> None:
            pass

        def initialize_kv_cache(self, *_: Any, **__: Any) -> None:
            pass

    Runner.initialize_kv_cache.__signature__ = inspect.signature(  # type: ignore[attr-defined]
        GPUModelRunner.initialize_kv_cache
    )
    lifecycle.wrap_lifecycle(Runner, "v1", lambda _: None)
    return Runner


@pytest.mark.parametrize(("args", "kwargs"), [((True,), {}), ((), {"is_profiling": True})])
def test_nothing_starts_while_vllm_measures(runner: Any, args: tuple[bool, ...], kwargs: dict[str, bool]) -> None:
    """Its caches of then are thrown away, with what would read their graphs."""
    one = runner(config(), "cpu")
    one.initialize_kv_cache(None, *args, **kwargs)
    assert one.toploc_worker is None
    one.initialize_kv_cache(None)
    assert one.toploc_worker == "started"


def test_a_runner_of_what_is_refused_is_not_made(runner: Any) -> None:
    with pytest.raises(UnsupportedEngine):
        runner(vllm_config=config(logits_processors=["a.b:C"]), device="cpu")
