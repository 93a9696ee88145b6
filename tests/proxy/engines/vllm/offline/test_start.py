"""What engines of ours inherit, and no others."""

from __future__ import annotations

import os

import pytest
from toploc_proxy.engines.vllm.offline.start import environment
from toploc_proxy.settings import ENVIRONMENT_VARIABLE, Settings


def ours() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in (ENVIRONMENT_VARIABLE, "VLLM_PLUGINS")}


@pytest.mark.parametrize("given", [None, "", "lora_filesystem_resolver"])
def test_only_what_is_made_inside_is_proven(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if given is not None:
        monkeypatch.setenv("VLLM_PLUGINS", given)
    before, settings = ours(), Settings(channel="/nowhere")
    with environment(settings):
        assert Settings.from_environ() == settings
        # Without the variable vLLM loads every plugin.
        named = os.environ.get("VLLM_PLUGINS")
        assert (named is None) if given is None else "toploc" in named.split(",")
    assert ours() == before
    with pytest.raises(ZeroDivisionError), environment(settings):
        1 / 0  # noqa: B018
    assert ours() == before
