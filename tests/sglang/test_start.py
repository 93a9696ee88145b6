"""A start that cannot prove ends, loudly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asking import MODEL
from sglang_server import COMMAND, ENVIRONMENT, SERVE
from toploc_proxy.engines.sglang.serve.command import parse
from toploc_proxy.engines.sglang.serve.refusals import refuse_unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = Path(__file__).parents[2] / "configs" / "serve" / "sglang.yaml"

OTHER_SGLANG = """
import sys

from sglang.srt.managers.tokenizer_manager import TokenizerManager

initialize = TokenizerManager.__init__


def initialize_and_change(self, *args, **kwargs):
    initialize(self, *args, **kwargs)
    self.model_config.hf_eos_token_id = 7


TokenizerManager.__init__ = initialize_and_change

if __name__ == "__main__":
    from toploc.cli import main

    sys.exit(main())
"""
"""`toploc` beside a SGLang of which an attribute is of another type, which nothing finds before it is used. Spawned
processes run the file too, under another name."""


def run(*options: str, command: Sequence[str] = COMMAND, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *SERVE, *options],
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_has_both_and_what_cannot_be_proven_is_refused_in_a_line(tmp_path: Path) -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert "--chunked-prefill-size" in shown.stdout
    assert "--toploc-only-on-request" in shown.stdout
    config = tmp_path / "server.yaml"
    config.write_text("speculative-algorithm: EAGLE\ntoploc-captures: 4\n")
    refused = run("--config", str(config))
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("toploc: with speculation")
    assert "Traceback" not in refused.stderr


def test_the_file_to_start_from_is_of_both(tmp_path: Path) -> None:
    """With its options that are commented out."""
    config = tmp_path / "sglang.yaml"
    config.write_text(re.sub(r"^# ([a-z-]+: \S+)$", r"\1", CONFIG.read_text(), flags=re.MULTILINE))
    args, theirs = parse(["--config", str(config)])
    refuse_unsupported(args)
    assert args.toploc_captures == 256
    assert args.toploc_signing_key == ["/etc/toploc/key.pem"]
    assert args.max_running_requests == 256
    assert not [option for option in theirs if option.startswith("--toploc")]


def test_the_doctor_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toploc", "doctor", "--engine", "sglang", "--port", "0", "--json", str(MODEL)]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert {finding["outcome"] for finding in report["checks"]} == {"passed"}, report
    assert [finding["check"] for finding in report["checks"]][:6] == [
        *("plugins", "torch", "sglang", "adapters", "loading", "kernels")
    ]
    assert done.returncode == 0


@pytest.mark.parametrize("options", [[], ["--tokenizer-worker-num", "2"]], ids=["one process", "tokenizer workers"])
@pytest.mark.sglang_all
def test_an_error_after_sglang_came_up_ends_the_server_in_a_line(tmp_path: Path, options: list[str]) -> None:
    """SGLang by itself would wait for its warm-up, which waits for the server."""
    (tmp_path / "other.py").write_text(OTHER_SGLANG)
    ended = run(*options, command=[sys.executable, str(tmp_path / "other.py"), "sglang"])
    assert ended.returncode not in (0, None)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("toploc: ")]
    assert lines[-1].startswith("toploc: the server cannot prove, and ends: TypeError: "), ended.stderr[-2000:]
    assert re.search(r"\(\w+\.py, line \d+\)$", lines[-1])
    assert "warmup error" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.sglang_all
def test_a_scheduler_that_cannot_prove_ends_the_server(tmp_path: Path) -> None:
    """A model whose hidden states are smaller than a proof: only the scheduler knows, and SGLang would serve on."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    for file in MODEL.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    ended = run("--model-path", str(tmp_path))
    assert ended.returncode != 0
    assert "toploc: hidden size 64 is below 128" in ended.stdout + ended.stderr
