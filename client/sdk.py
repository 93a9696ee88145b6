"""What the OpenAI SDK's clients, synchronous or not, need to check the answers they bring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self, cast

from openai._models import construct_type
from openai._streaming import extract_stream_chunk_type

from .answer import Answer
from .checker import Checker, Counts
from .exchange import Exchange, typed
from .foreign import BROKEN
from .options import NAMES, Options
from .routes import EXTENSION, kind_of, sent_of, sent_with
from .seeds import NONE, draw, wanted
from .tap import is_stream, tap_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .routes import Sent
    from .tap import BaseTap


class Checked:
    """What both clients share. `_process_response` is the SDK's one place that every reply passes, raw ones too."""

    _toploc: Checker
    _stream_type: type[Any]
    _tap_type: type[BaseTap]

    def _finish(self, answer: Answer) -> Any:
        """Has an answer checked; awaitable where the client is asynchronous."""
        raise NotImplementedError

    def __init__(self, *, _toploc: Checker | None = None, **options: Any) -> None:
        own = _own(options)
        self._toploc = _toploc or Checker(Options(**own))
        super().__init__(**options)

    def copy(self, *, _extra_kwargs: Mapping[str, Any] = {}, **options: Any) -> Self:
        """The SDK's own, which takes our options too."""
        own = _own(options)
        checker = self._toploc.with_changes(own) if own else self._toploc
        sdk = cast("Any", super())
        return cast("Self", sdk.copy(_extra_kwargs={**_extra_kwargs, "_toploc": checker}, **options))

    with_options = cast("Any", copy)

    @property
    def audit_seed(self) -> str:
        """With which `audit_rate` chooses; keep it to show later which answers were to be checked."""
        return self._toploc.seed

    @property
    def checks(self) -> Counts:
        """How answers fared so far."""
        return self._toploc.counts

    def flush_checks(self, timeout: float | None = None) -> bool:
        """Waits for the checks in the background, up to `timeout` seconds; whether all are done."""
        return self._toploc.flush(timeout)

    def _exchange(self, request: Any, response: Any) -> Exchange:
        """Of what `verify` was given."""
        return self._toploc.memory.recall(request) if response is None else Exchange.of(request, response)

    def _samples(self, options: Any) -> bool:
        """Whether a request samples, has no seed, and somebody will check that it was drawn with one."""
        checker, body = self._toploc, options.json_data
        if not (checker.options.draw_seeds and checker.options.verifiers and isinstance(body, dict)):
            return False
        kind = kind_of(options.method.upper(), str(options.url).partition("?")[0])
        return wanted(kind, {**body, **_extra(options)})

    def _seed(self, options: Any) -> None:
        """Unless the server has said that no sampler of its can be replayed: a seed would be of no use."""
        if self._toploc.sampler != NONE:
            body = options.json_data
            options.json_data = {**body, "seed": draw(self._toploc.options.draw_seeds, {**body, **_extra(options)})}

    def _note_sent(self, request: Any) -> None:
        """A request keeps what it asks, wherever it is redirected to."""
        if not self._toploc.idle and (sent := sent_with(request)) is not None:
            request.extensions = {**request.extensions, EXTENSION: sent}

    def _prepare_reply(self, reply: dict[str, Any]) -> Sent | None:
        """Has streams and objects typed, and stands between the reply's bytes and its readers; what was asked, if the
        reply is an answer that was read already."""
        response, options = reply["response"], reply["options"]
        sent = sent_of(response)
        if sent is None:
            return None
        checker, cast_to = self._toploc, reply["cast_to"]
        if reply["stream"] and reply["stream_cls"] is not None:
            reply["stream_cls"] = self._stream_type[extract_stream_chunk_type(reply["stream_cls"])]
        if reply["stream"] or not response.is_closed:
            if not checker.idle:

                def construct(exchange: Exchange) -> Any:
                    try:
                        value = construct_type(value=json.loads(exchange.response), type_=cast_to)
                    except BROKEN:
                        return None
                    typed(value)
                    return value

                streams = is_stream(response, reply["stream"])
                self._tap_type(response, sent, checker, finish=self._finish, streams=streams, parse=construct)
            if reply["stream"]:
                return None
        before = options.post_parser

        def parse(parsed: Any) -> Any:
            value = before(parsed) if callable(before) else parsed
            typed(value)
            checker.memory.remember(value, Exchange.read(sent.body, response.content))
            return value

        # Not on the SDK's own object, whose post_parser a retry would wrap again.
        reply["options"] = options.model_copy(update={"post_parser": parse})
        return None if checker.idle or tap_of(response) is not None else sent


def _extra(options: Any) -> dict[str, Any]:
    """What a request's body has of `extra_body`."""
    return options.extra_json if isinstance(options.extra_json, dict) else {}


def _own(options: dict[str, Any]) -> dict[str, Any]:
    """Ours of a client's options, taken out of them."""
    return {name: options.pop(name) for name in NAMES if name in options}


def answer_of(value: Any, sent: Sent, response: Any) -> Answer:
    """Of an object of the SDK, or of a raw response, which is not parsed before its user does."""
    exchange = Exchange.read(sent.body, response.content)
    proofs = typed(value) if hasattr(value, "__pydantic_extra__") else exchange.proofs
    return Answer(exchange, value, proofs, sent)
