"""What the engine says to a prefill of a verification."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from toploc_proxy.engines.vllm.prefill import PrefillEngine
from toploc_proxy.verify.engine import Busy
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMClientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.parametrize(
    ("error", "raised"),
    [(QueueOverflowError(), Busy), (MaxQueuedTokensError(), Busy), (VLLMClientError("no"), VLLMClientError)],
)
def test_a_full_queue_is_told_from_other_errors(error: Exception, raised: type[Exception]) -> None:
    async def generate(*_: Any, **__: Any) -> AsyncIterator[None]:
        raise error
        yield

    engine = PrefillEngine.__new__(PrefillEngine)
    engine._generate, engine._priority, engine._prefilling = generate, 0, 0  # type: ignore[assignment]
    call: Any = SimpleNamespace(lora_request=None, prompt={"type": "token", "prompt_token_ids": [1]})
    with pytest.raises(raised):
        asyncio.run(engine.prefill("x", [1], call, {}))
