"""What vLLM's sampler asks for on CPUs when it has drafts."""

from __future__ import annotations

import pytest
import torch
from toploc_proxy.engines.vllm import expansion
from vllm.v1.sample import rejection_sampler


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
@pytest.mark.parametrize("ends", [[2, 5, 6], [0, 4, 6], [1, 1, 6], [6, 6, 6]])
def test_each_token_has_its_requests_option(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, ends: list[int]
) -> None:
    monkeypatch.setattr(rejection_sampler, "expand_batch_to_tokens", rejection_sampler.expand_batch_to_tokens)
    expansion.mend()
    options = torch.tensor([0.5, 40, -1]).to(dtype)
    found = rejection_sampler.expand_batch_to_tokens(
        options, torch.tensor(ends, dtype=torch.int32), 6, replace_from=-1, replace_to=1
    )
    wanted = [*options[:2].tolist(), 1]
    starts = [0, *ends[:-1]]
    assert found.tolist() == [value for value, a, b in zip(wanted, starts, ends, strict=True) for _ in range(b - a)]
    assert found.dtype == dtype
