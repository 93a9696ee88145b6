"""A model that is none is said at once, before prompts are read or a server is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toploc_proxy.experiment import generate, validate

from toploc.errors import ToplocError

if TYPE_CHECKING:
    from pathlib import Path


def test_generate(tmp_path: Path) -> None:
    call = ["--model_name", "/no/such/model", "--save_dir", str(tmp_path), "--dataset_name", "toploc-questions"]
    with pytest.raises(ToplocError, match="--model_name: /no/such/model: no such folder"):
        generate.main(call)
    with pytest.raises(ToplocError, match="--weights: no-such-model is no folder here, and "):
        generate.main([*call, "--weights", "no-such-model"])
    assert not list(tmp_path.iterdir())


def test_validate(tmp_path: Path) -> None:
    with pytest.raises(ToplocError, match="--validate_model_name: no-such-model is no folder here, and "):
        validate.main(
            ["--decode_model_name", "x", "--validate_model_name", "no-such-model", "--save_dir", str(tmp_path)]
        )
