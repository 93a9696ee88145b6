"""vLLM's engine for offline work, whose requests are tagged and whose outputs carry proofs."""

from __future__ import annotations

import queue
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from vllm.sampling_params import SamplingParams
from vllm.v1.engine.llm_engine import LLMEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm.lora.request import LoRARequest

    from .calls import Calls

Output = Any
"""vLLM's RequestOutput, or its PoolingRequestOutput."""


class ProvingEngine(LLMEngine):  # type: ignore[misc]
    """An engine that `adopt` has made one of these.

    A worker holds the hidden states of so many answers at once. So a request waits here for room, and while it waits
    the engine's outputs are taken in: `step` gives them out later.
    """

    toploc_calls: Calls
    toploc_ready: deque[Output]
    toploc_prefills: set[str]

    @classmethod
    def adopt(cls, engine: Any, calls: Calls) -> ProvingEngine:
        """Makes an engine that vLLM's `LLM` has made for itself one of these.

        By its class: methods that are bound to an instance and kept on it make a circle, and the engine would outlive
        the last who has it.
        """
        engine.__class__ = cls
        adopted = cast("ProvingEngine", engine)
        adopted.toploc_calls = calls
        adopted.toploc_ready = deque()
        adopted.toploc_prefills = set()
        return adopted

    def add_request(
        self,
        request_id: str,
        prompt: Any,
        params: Any,
        arrival_time: float | None = None,
        lora_request: LoRARequest | None = None,
        **options: Any,
    ) -> str:
        """Takes in what the engine has done, and waits for room, before it adds the request."""
        if not isinstance(params, SamplingParams):
            return str(super().add_request(request_id, prompt, params, arrival_time, lora_request, **options))
        calls = self.toploc_calls
        while self._has_output() or not calls.has_room(params.n):
            self.toploc_ready += self.advance()
        tagged, internal_id = calls.tag(request_id, prompt, params, lora_request), ""
        try:
            internal_id = super().add_request(request_id, prompt, tagged, arrival_time, lora_request, **options)
            return str(internal_id)
        finally:
            calls.add(request_id, internal_id)

    def add_prefill(
        self, name: str, token_ids: list[int], params: SamplingParams, lora_request: LoRARequest | None
    ) -> None:
        """Adds a prefill that verifies; `advance` takes its name out of `toploc_prefills` when it is done."""
        prompt = {"type": "token", "prompt_token_ids": token_ids}
        super().add_request(name, prompt, params, lora_request=lora_request)
        self.toploc_prefills.add(name)

    def step(self) -> list[Output]:
        if self.toploc_ready:
            outputs, self.toploc_ready = list(self.toploc_ready), deque()
        else:
            outputs = self.advance()
        self.toploc_calls.forget(outputs)
        return outputs

    def advance(self) -> list[Output]:
        """A step of the engine: its outputs with proofs, less those of prefills."""
        outputs = [output for output in super().step() if not self._is_prefill(output)]
        self.toploc_calls.prove(outputs)
        return outputs

    def has_unfinished_requests(self) -> bool:
        return bool(self.toploc_ready) or super().has_unfinished_requests()

    def get_num_unfinished_requests(self) -> int:
        waiting = (output.outputs for output in self.toploc_ready if output.finished)
        return int(super().get_num_unfinished_requests()) + sum(len(o) if isinstance(o, list) else 1 for o in waiting)

    def abort_request(self, request_ids: Sequence[str], internal: bool = False) -> None:
        super().abort_request(list(request_ids), internal)
        dropped = self.toploc_calls.drop(request_ids)
        self.toploc_ready = deque(output for output in self.toploc_ready if output.request_id not in dropped)

    def _has_output(self) -> bool:
        """Whether an engine in another process has given outputs that nobody has taken; one in this process gives them
        when it is asked (SyncMPClient and InprocClient, vllm/v1/engine/core_client.py)."""
        outputs = getattr(self.engine_core, "outputs_queue", None)
        return isinstance(outputs, queue.Queue) and not outputs.empty()

    def _is_prefill(self, output: Output) -> bool:
        if output.request_id not in self.toploc_prefills:
            return False
        if output.finished:
            self.toploc_prefills.remove(output.request_id)
        return True
