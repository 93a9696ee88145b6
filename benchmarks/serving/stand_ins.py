"""An engine and a route without a model, for `answers.py`."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STEP: Final = 0.001
"""Seconds between two steps, in which the event loop has nothing to do."""

WORK: Final = 0.001
"""Seconds that vLLM would work on a step's outputs. The loop sleeps them, so they are not counted, and replies arrive
meanwhile as they do beside an engine."""

PROMPT: Final = list(range(1000, 1128))


class Engine:
    """What `EarlyQuestions` and `generate` see of vLLM: each running request gets a token a step."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._running: dict[str, Any] = {}
        self.output_processor = SimpleNamespace(request_states=self._running)
        self.engine_core = SimpleNamespace(
            add_request_async=self.add_request_async, get_output_async=self.get_output_async
        )

    async def add_request_async(self, request: Any) -> None:
        pass

    async def get_output_async(self) -> Any:
        await asyncio.sleep(STEP)
        return SimpleNamespace(outputs=[self._output(name, state) for name, state in self._running.items()])

    def _output(self, request_id: str, state: Any) -> Any:
        made = len(state.detokenizer.output_token_ids) + 1
        reason = "length" if made == self._tokens else None
        return SimpleNamespace(request_id=request_id, new_token_ids=[5000 + made], finish_reason=reason)

    async def run(self) -> None:
        """vLLM's output handler."""
        while True:
            step = await self.engine_core.get_output_async()
            time.sleep(WORK)
            for output in step.outputs:
                state = self._running[output.request_id]
                ids, finished = state.detokenizer.output_token_ids, output.finish_reason is not None
                ids += output.new_token_ids
                if finished or not state.whole:
                    given = ids if state.whole else output.new_token_ids
                    choice = CompletionOutput(0, " word", given, None, None, finish_reason=output.finish_reason)
                    made = RequestOutput(output.request_id, None, PROMPT, None, [choice], finished=finished)
                    state.queue.put_nowait(made)

    async def generate(self, _: Any, params: SamplingParams, request_id: str) -> AsyncGenerator[RequestOutput]:
        """As vLLM's own."""
        self._running[request_id] = state = SimpleNamespace(
            queue=asyncio.Queue(),
            whole=params.output_kind is RequestOutputKind.FINAL_ONLY,
            detokenizer=SimpleNamespace(output_token_ids=[]),
        )
        request = SimpleNamespace(request_id=request_id, sampling_params=params, prompt_token_ids=PROMPT)
        await self.engine_core.add_request_async(request)
        try:
            finished = False
            while not finished:
                output = await state.queue.get()
                finished = output.finished
                yield output
        finally:
            del self._running[request_id]


class Chat:
    """An application of one route, which streams or answers whole."""

    def __init__(self, engine: Any, *, whole: bool) -> None:
        self._engine = engine
        self._whole = whole
        self._numbers = itertools.count()

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        await receive()
        name = f"chatcmpl-{next(self._numbers):032x}"
        kind = RequestOutputKind.FINAL_ONLY if self._whole else RequestOutputKind.DELTA
        outputs = self._engine.generate(
            {"type": "token"}, SamplingParams(temperature=1.0, output_kind=kind), request_id=name
        )
        media = b"application/json" if self._whole else b"text/event-stream"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]})
        async for output in outputs:
            [made] = output.outputs
            body = _document(name, made) if self._whole else _event(name, made.finish_reason)
            await send({"type": "http.response.body", "body": body, "more_body": not self._whole})
        if not self._whole:
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(name: str, reason: str | None) -> bytes:
    """By hand, since what an event itself costs is in both halves of a difference."""
    said = b"null" if reason is None else b'"%s"' % reason.encode()
    return (
        b'data: {"id":"%s","object":"chat.completion.chunk","created":1764500000,"model":"m","choices":[{"index":0,'
        b'"delta":{"content":" word"},"logprobs":null,"finish_reason":%s}]}\n\n' % (name.encode(), said)
    )


def _document(name: str, made: CompletionOutput) -> bytes:
    message = {"role": "assistant", "content": made.text * len(made.token_ids)}
    choice = {"index": 0, "message": message, "finish_reason": made.finish_reason}
    said = {"id": name, "object": "chat.completion", "created": 1764500000, "model": "m", "choices": [choice]}
    return json.dumps(said).encode()
