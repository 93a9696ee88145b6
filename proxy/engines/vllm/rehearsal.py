"""What the server itself would hand to the engine for a request, found by letting its own route run up to there.

The routes of vLLM read the request, choose the adapter, render the prompt by the chat template, and then call
`engine_client.generate`. A rehearsal ends there. So the prompt is the server's own in every version of vLLM and with
every option of the server, and nothing is generated.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from ...verify.engine import Unrenderable
from . import reliances
from .guards import load, method

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from starlette.datastructures import State
    from vllm.sampling_params import SamplingParams

    from ..reliance import Reliance

sanitize_message: Final = load(reliances.SANITIZE_MESSAGE)

# Where an answer is left to be fetched, or sent piece by piece: no part of what is asked.
DELIVERY: Final = ("stream", "stream_options", "store", "background")


class Handler(NamedTuple):
    """Where in vLLM an endpoint is: the application state's attribute, its method, and the request's class."""

    attribute: str
    create: Reliance
    request: Reliance


HANDLERS: Final = {
    "chat": Handler("openai_serving_chat", reliances.CHAT, reliances.CHAT_REQUEST),
    "batch": Handler("openai_serving_chat_batch", reliances.BATCH, reliances.BATCH_REQUEST),
    "completion": Handler("openai_serving_completion", reliances.COMPLETION, reliances.COMPLETION_REQUEST),
    "response": Handler("openai_serving_responses", reliances.RESPONSE, reliances.RESPONSE_REQUEST),
    "message": Handler("anthropic_serving_messages", reliances.MESSAGE, reliances.MESSAGE_REQUEST),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `generate` that did not happen."""

    prompt: Any
    sampling_params: SamplingParams
    lora_request: Any

    @property
    def token_ids(self) -> list[int]:
        """Raises Unrenderable for prompts that are more than tokens."""
        kind = self.prompt.get("type", "token") if isinstance(self.prompt, dict) else None
        if kind != "token":
            raise Unrenderable("a prompt with images, audio or embeddings cannot be verified")
        return list(self.prompt["prompt_token_ids"])


_calls: ContextVar[list[Call] | None] = ContextVar("toploc_rehearsal", default=None)


def rehearsed(prompt: Any, sampling_params: SamplingParams, lora_request: Any) -> AsyncGenerator[Any, None] | None:
    """What `generate` returns in a rehearsal, None outside of one."""
    calls = _calls.get()
    if calls is None:
        return None
    calls.append(Call(prompt, sampling_params, lora_request))
    return _end()


async def _end() -> AsyncGenerator[Any, None]:
    # What routes take for a client that has gone, in silence.
    raise asyncio.CancelledError
    yield  # type: ignore[unreachable]


class Rehearsal:
    """The server's routes.

    Raises:
        UnsupportedEngine: this vLLM's are not where they are known to be.
    """

    def __init__(self, state: State) -> None:
        self._routes: dict[str, tuple[Any, Any]] = {}
        for route, handler in HANDLERS.items():
            serving = getattr(state, handler.attribute, None)
            if serving is not None:
                self._routes[route] = load(handler.request), method(serving, handler.create)

    async def calls(self, route: str, body: Mapping[str, Any]) -> Sequence[Call]:
        """What the body leads to: a call for every prompt.

        Raises:
            Unrenderable: nothing.
        """
        if route not in self._routes:
            raise Unrenderable("this server does not have the request's endpoint")
        request_class, create = self._routes[route]
        try:
            request = request_class.model_validate({k: v for k, v in body.items() if k not in DELIVERY})
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise Unrenderable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        calls: list[Call] = []
        token = _calls.set(calls)
        refusal: Any = None
        try:
            with suppress(asyncio.CancelledError):
                refusal = await create(request, None)
        except Exception as error:
            # Templates are programs that run on foreign input: anything may come out.
            refusal = error
        finally:
            _calls.reset(token)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        if not calls:
            raise Unrenderable(_message(refusal))
        return calls


def _message(refusal: Any) -> str:
    """Without paths and addresses, which exceptions tell of and vLLM's own error handlers take out."""
    error = getattr(refusal, "error", refusal)
    message: str = sanitize_message(str(getattr(error, "message", None) or error or "nothing was generated"))
    return message[:200]
