"""The `send` of one HTTP request: adds `toploc_proofs` to a JSON body or to the events that end a choice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from toploc.protocol import FIELD_NAME, ProofError

from ..asgi.errors import error_body, send_error
from ..asgi.sse import EventSplitter, add_field, add_field_within, event_json
from ..log import RequestLogger
from ..settings import OnError
from .context import TOGETHER, UNKNOWN
from .later import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from starlette.types import Message, Send

    from toploc.protocol import ToplocProofs

    from ..receipts.signing import Signature
    from ..stores.proofs import ProofStore
    from .context import RequestContext
    from .later import Later

MAY_END_CHOICE: Final = re.compile(
    rb'"(?:finish_reason|stop_reason)":\s*["{]|"type":\s*"response\.(?:completed|incomplete)"'
)
"""What the events that end a choice contain, and few others: chat, completions and Cohere's chat; /v1/messages;
/v1/responses; SGLang's /generate. Inside a JSON string the quotes would be escaped, so generated text cannot look like
this."""

UNANSWERED: Final = frozenset(("queued", "in_progress", "failed", "cancelled"))
"""What a response of /v1/responses says of itself that has no answer, or none yet."""


class _Own(msgspec.Struct):
    """What SGLang's /generate says of an answer."""

    id: str = ""


class _Head(msgspec.Struct):
    """What a JSON response is."""

    id: str = ""
    request_id: str = ""
    """Of an answer of tokens, in place of the other."""
    object: str = ""
    status: str = ""
    meta_info: _Own | None = None
    """Of an answer of SGLang's /generate. No receipt is for its form."""

    @property
    def name(self) -> str:
        """By which its proofs are kept."""
        return self.id or self.request_id or (self.meta_info.id if self.meta_info else "")


_HEADS: Final = msgspec.json.Decoder(_Head)

BODY_HEADERS: Final = (b"content-length", b"etag", b"content-md5", b"digest", b"content-digest", b"repr-digest")
"""Wrong once the body has changed."""


class Responder:
    """Decides by a response's head what to do with its body; what is not ours passes as it came.

    Args:
        later: keeps the answer if its response can be fetched later.
        store: keeps its proofs, by the response's id.
    """

    def __init__(
        self,
        context: RequestContext,
        send: Send,
        on_error: OnError,
        signature: Signature | None = None,
        *,
        later: Later | None = None,
        store: ProofStore | None = None,
    ) -> None:
        self._context = context
        self._send = send
        self._on_error = on_error
        self._signature = signature
        self._later = later
        self._store = store
        self._ended: list[int] = []
        self._delivered: tuple[str, bytes] | None = None
        self._head: Message | None = None
        self._body: list[Message] = []
        self._streams = False
        self._begun = False
        # Whether events go by until a choice is settled.
        self._passes = False
        self._keep = None if signature is None else signature.keep
        self._message_id = ""
        self._events = EventSplitter()

    def __call__(self, message: Message) -> Awaitable[None]:
        # No coroutine of ours around what every token of every stream goes through.
        if self._passes and not self._context.settled:
            if self._keep is not None:
                self._keep(message.get("body", b""))
            return self._send(message)
        return self._handle(message)

    async def _handle(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._head is not None:
            await self._collect(message, self._head)
        elif message["type"] == "http.response.body" and self._streams:
            if self._begun:
                await self._stream(message)
                return
            self._begun, self._passes = True, self._later is None
            self._message_id = _message_id(message.get("body", b""))
            await self(message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = {name.lower(): value for name, value in message.get("headers", ())}
        kind = media_type(headers.get(b"content-type", b""))
        readable = message["status"] < 400 and b"content-encoding" not in headers
        if readable and kind == b"application/json" and (self._is_proven or self._later is not None):
            # Held back until the body's new length is known.
            self._head = message
            return
        if readable and kind == b"text/event-stream":
            self._streams = True
        await self._send(message)

    async def _collect(self, message: Message, head: Message) -> None:
        self._body.append(message)
        if message.get("more_body", False):
            return
        self._head = None
        body = b"".join(part.get("body", b"") for part in self._body)
        said = _head_of(body)
        if self._signature is not None:
            await self._signature.prepare()
        if said.object == "response":
            self._keep_for_later(said.id)
        if said.status in UNANSWERED or not self._is_proven:
            await self._pass_on(head)
            return
        is_list = body.lstrip().startswith(b"[")
        try:
            if is_list:
                self._fail_if_told(self._proofs())
                body = self._extend_list(body)
            else:
                body = add_field(body, FIELD_NAME, await self._field_of_body(body, said))
        except _Failed as failed:
            error = failed.error
            await send_error(self._send, 500, error.message, None, error.code)
            return
        except ValueError:
            self._log.warning("a JSON response that is not an object cannot carry proofs")
            await self._pass_on(head)
            return
        headers = [(name, value) for name, value in head["headers"] if name.lower() not in BODY_HEADERS]
        self.close()
        await self._send({**head, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({**message, "body": body})

    async def _field_of_body(self, body: bytes, said: _Head) -> bytes:
        """Raises _Failed if the answer is to fail."""
        if (field := self._plain(said.name)) is not None:
            return field
        proofs = self._proofs()
        self._fail_if_told(proofs)
        if self._signature is not None and said.meta_info is None:
            proofs = await self._signature.sign_body(proofs, body, is_kept=said.object == "response")
        return self._field(said.name, proofs)

    def _extend_list(self, body: bytes) -> bytes:
        """The answers of SGLang's /generate to several prompts, each with its own field.

        Raises ValueError for other lists.
        """
        answers = orjson.loads(body)
        if not answers or not all(isinstance(answer, dict) and "meta_info" in answer for answer in answers):
            raise ValueError("a list of something else")
        for index, answer in enumerate(answers):
            field = self._field(str(answer["meta_info"].get("id")), self._proofs([index]))
            answer[FIELD_NAME] = orjson.Fragment(field)
            self.close()
        return orjson.dumps(answers)

    async def _pass_on(self, head: Message) -> None:
        for unchanged in (head, *self._body):
            await self._send(unchanged)

    async def _stream(self, message: Message) -> None:
        """Events since a choice was settled; those before, which may have ended in the middle, went by as they came."""
        data, more = message.get("body", b""), message.get("more_body", False)
        if self._signature is not None:
            self._signature.keep(data)
        whole = data.endswith(b"\n\n") and not self._events.waiting
        if more and whole and self._later is None and MAY_END_CHOICE.search(data) is None:
            await self._send(message)
            return
        if self._signature is not None:
            await self._signature.prepare()
        body = b"".join([await self._extend(event) for event in self._events.feed(data)])
        if not more:
            body += self._events.flush()
            self.close()
        self._passes = self._later is None and not self._events.waiting
        if body or not more:
            await self._send({**message, "body": body})

    async def _extend(self, event: bytes) -> bytes:
        """The event, with the field if it ends a choice; as it came if it cannot be read."""
        if self._later is not None:
            self._keep_for_later(_head_of(event_json(event) or b"", within="response").id)
        if MAY_END_CHOICE.search(event) is None or (document := event_json(event)) is None:
            return event
        try:
            return event.replace(document, await self._extend_json(document), 1)
        except _Failed as failed:
            return _error_event(event, failed.error)
        except (ValueError, RecursionError):
            self._log.warning("an event whose JSON does not parse cannot carry proofs")
            return event

    async def _extend_json(self, document: bytes) -> bytes:
        """Raises _Failed if the answer is to fail, ValueError or RecursionError if the document cannot be read."""
        index: int | None = None
        within: str | None = None
        is_own = False
        match orjson.loads(document):
            case {"choices": [{"index": int(i), "finish_reason": str()}]} as head:
                index = i
            case {"type": "message_delta", "delta": {"stop_reason": str()}}:
                head = {"id": self._message_id or self._context.request_id}
            case {"type": "message-end", "delta": {"finish_reason": str()}} as head:
                pass
            case {"type": "response.completed" | "response.incomplete", "response": dict(head)}:
                within = "response"
            case {"meta_info": {"id": str(name), "finish_reason": dict()}} as own:
                head, index, is_own = {"id": name}, own.get("index", 0), True
            case _:
                return document
        name = str(head.get("id") or head.get("request_id", ""))
        if (field := self._plain(name, index)) is None:
            field = await self._field_of_event(head, name, index, signs=not is_own)
        if within is None:
            return add_field(document, FIELD_NAME, field)
        return add_field_within(document, within, FIELD_NAME, field)

    async def _field_of_event(self, head: dict[str, Any], name: str, index: int | None, *, signs: bool) -> bytes:
        """Raises _Failed if the answer is to fail."""
        proofs = self._proofs(None if index is None else [*(i for i in self._ended if i != index), index])
        self._fail_if_told(proofs)
        if self._signature is not None and signs:
            proofs = await self._signature.sign_event(proofs, head, index)
        if index is not None and index not in self._ended and (proofs.error is None or proofs.error.code != UNKNOWN):
            self._ended.append(index)
        return self._field(name, proofs)

    def _plain(self, response_id: str, index: int | None = None) -> bytes | None:
        """The field of an answer of one choice, unsigned and with its proofs; None of any other."""
        if self._signature is not None:
            return None
        try:
            field = self._context.plain_json(None if index is None else [index])
        except Exception:
            # The longer way says what went wrong.
            return None
        if field is not None:
            if index is not None and index not in self._ended:
                self._ended.append(index)
            self._delivered = (response_id, field)
        return field

    def _keep_for_later(self, response_id: str) -> None:
        """Once, as soon as the response's id is known."""
        if self._later is not None and response_id:
            self._later.keep(response_id, Answer(self._context, self._signature))
            self._later = None

    def _field(self, response_id: str, proofs: ToplocProofs) -> bytes:
        """In JSON, as it is delivered and kept."""
        self._context.keep_receipts(proofs)
        self._delivered = (response_id, proofs.to_json())
        return self._delivered[1]

    def close(self) -> None:
        """Has the proofs of what is delivered kept, once. For whenever the response is over, or its client has gone.

        Before its last bytes are sent: whoever has them may ask for the proofs at once.
        """
        if self._store is None or self._delivered is None:
            return
        (response_id, field), self._delivered = self._delivered, None
        # Of many choices each event but the last has one.
        self._store.add(response_id, self._proofs().to_json() if len(self._ended) > TOGETHER else field)

    def _proofs(self, ended: Sequence[int] | None = None) -> ToplocProofs:
        """See `RequestContext.proofs`; whatever goes wrong there, the text is delivered."""
        try:
            return self._context.proofs(ended)
        except Exception:
            self._log.exception("putting proofs together failed")
            return self._context.without_proofs(
                ProofError(code="internal_error", message="putting the proofs together failed")
            )

    @property
    def _is_proven(self) -> bool:
        """Whether something was generated, or was once."""
        return bool(self._context.calls) or self._context.lost is not None

    @property
    def _log(self) -> RequestLogger:
        return RequestLogger(self._context.request_id)

    def _fail_if_told(self, proofs: ToplocProofs) -> None:
        """Raises _Failed for a choice without proofs, if the server was told so."""
        if self._on_error is not OnError.FAIL:
            return
        for error in (proofs.error, *(choice.error for choice in proofs.choices or ())):
            if error is not None:
                raise _Failed(error)


class _Failed(Exception):
    """The event that would carry this error is to be one."""

    def __init__(self, error: ProofError) -> None:
        super().__init__(error.message)
        self.error = error


def _error_event(event: bytes, error: ProofError) -> bytes:
    """An error in place of `event`, under a name of its own where events have names."""
    name = b"event: error\n" if any(line.startswith(b"event:") for line in event.split(b"\n")) else b""
    return name + b"data: " + error_body(500, error.message, None, error.code) + b"\n\n"


def _head_of(document: bytes, within: str | None = None) -> _Head:
    """An empty one of what has none."""
    try:
        if within is None:
            return _HEADS.decode(document)
        return msgspec.convert(msgspec.json.decode(document)[within], _Head)
    except (ValueError, LookupError, TypeError, RecursionError):
        return _Head()


def _message_id(data: bytes) -> str:
    """The response's, where a stream's first event begins a message of /v1/messages; no other event has it."""
    if not data.startswith(b"event: message_start\n"):
        return ""
    [event, *_] = EventSplitter().feed(data) or [b""]
    return _head_of(event_json(event) or b"", within="message").id


def media_type(content_type: bytes) -> bytes:
    """A content type without its parameters."""
    return content_type.partition(b";")[0].strip().lower()
