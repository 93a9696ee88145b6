"""Which requests are proven, and what the application gets to see of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from states import server
from toploc_proxy.answers.context import Call, current
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.settings import OnError, Settings

from toploc.protocol import ChoiceProofs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SETTINGS = Settings(channel="/nowhere")


def generate(n: int = 1) -> None:
    """What a route's call of `generate` leaves behind."""
    context = current.get()
    if context is not None:
        refusal = context.refusal
        choices = {i: ChoiceProofs(index=i, token_ids=(i,), proofs=("p",)) for i in range(n)}
        context.calls.append(Call("model", n, refusal, [1, 2, 3], {} if refusal else choices))
        context.settled = True


async def chat(request: Request) -> Response:
    """Answers with what it read, and says whether it was to be proven."""
    body = await request.body()
    generate()
    return JSONResponse({"body": body.decode("latin-1"), "in_context": current.get() is not None})


async def tokenize(request: Request) -> Response:
    await request.body()
    return Response('{ "tokens": [1] }', media_type="application/json", headers={"etag": "x"})


async def stream(request: Request) -> Response:
    n = (await request.json()).get("n", 1)

    async def events() -> AsyncIterator[str]:
        generate(n)
        for i in range(n):
            yield f'data: {{"choices":[{{"index":{i},"finish_reason":null}}]}}\n\n'
        for i in range(n):
            yield f'data: {{"choices":[{{"index":{i},"finish_reason":"stop"}}]}}\n\n'
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def refuse(request: Request) -> Response:
    generate()
    return JSONResponse({"error": {}}, 422)


async def crash(request: Request) -> Response:
    generate()
    raise RuntimeError("in the application")


def application(settings: Settings = SETTINGS, **routes: Callable[..., Any]) -> Starlette:
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
    endpoints = {"chat": chat, "tokenize": tokenize, "stream": stream, "refuse": refuse, "crash": crash, **routes}
    app = Starlette(
        routes=[Route(f"/{name}", endpoint, methods=methods) for name, endpoint in endpoints.items()],
        middleware=[Middleware(ProofMiddleware, settings=settings)],
    )
    app.state.toploc = server()
    return app


def send(method: str, path: str, settings: Settings = SETTINGS, app: Any = None, **request: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app or application(settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def post(body: Any, settings: Settings = SETTINGS, path: str = "/chat") -> httpx.Response:
    return send("POST", path, settings, json=body)


def post_bytes(body: bytes, content_type: str = "application/json") -> httpx.Response:
    return send("POST", "/chat", content=body, headers={"content-type": content_type})


def test_answer_carries_proofs() -> None:
    response = post({"messages": []})
    assert response.status_code == 200
    assert response.json()["toploc_proofs"]["choices"] == [{"index": 0, "token_ids": [0], "proofs": ["p"]}]
    assert response.headers["content-length"] == str(len(response.content))


def test_stream_carries_proofs() -> None:
    response = post({"n": 3}, path="/stream")
    events = [event.removeprefix("data: ") for event in response.text.split("\n\n")]
    fields = [json.loads(event).get("toploc_proofs") for event in events[:6]]
    assert [field and [choice["index"] for choice in field["choices"]] for field in fields] == [
        None,
        None,
        None,
        [0],
        [0, 1],
        [0, 1, 2],
    ]
    assert events[6:] == ["[DONE]", ""]
    assert "content-length" not in response.headers


@pytest.mark.parametrize("path", ["generative_scoring", "v1/decisions", "v1/systemone"])
def test_tokens_that_nobody_sees_are_not_proven(path: str) -> None:
    response = send("POST", f"/{path}", app=application(**{path: chat}), json={"items": []})
    assert response.json() == {"body": '{"items":[]}', "in_context": False}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_other_methods_are_left_alone(method: str) -> None:
    response = send(method, "/chat", json={"toploc": {"unknown": 1}})
    assert response.status_code == 200
    assert method == "HEAD" or response.json()["in_context"] is False


def test_a_route_that_generates_by_another_method_too() -> None:
    response = send("PUT", "/generate", app=application(generate=chat), json={"text": "x"})
    assert response.json()["toploc_proofs"]["choices"]


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=x", "text/plain", "application/octet-stream", "application/jsonl"]
)
def test_other_content_types_are_left_alone(content_type: str) -> None:
    response = post_bytes(b'{"toploc": {"unknown": 1}}', content_type)
    assert response.json() == {"body": '{"toploc": {"unknown": 1}}', "in_context": False}


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_content_types_of_json(content_type: str) -> None:
    assert "toploc_proofs" in post_bytes(b"{}", content_type).json()


def test_other_scopes_are_left_alone() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    scopes: list[dict[str, Any]] = [{"type": "lifespan"}, {"type": "websocket", "headers": []}]
    for scope in scopes:
        asyncio.run(ProofMiddleware(app, SETTINGS)(scope, nothing, nothing))
    assert seen == [(scope, nothing, nothing) for scope in scopes]


def test_response_without_generation_keeps_every_byte_and_header() -> None:
    response = post({}, path="/tokenize")
    assert response.text == '{ "tokens": [1] }'
    assert dict(response.headers) == {"content-length": "17", "content-type": "application/json", "etag": "x"}


def test_refusals_of_the_application_are_left_alone() -> None:
    assert post({}, path="/refuse").text == '{"error":{}}'
    assert post({}, path="/nowhere").status_code == 404


def test_error_of_the_application_reaches_its_own_handler() -> None:
    response = post({}, path="/crash")
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert current.get() is None


# Options


@pytest.mark.parametrize(
    ("default", "options", "proven"),
    [
        (True, {}, True),
        (True, {"toploc": {}}, True),
        (True, {"toploc": {"enabled": None}}, True),
        (True, {"toploc": {"enabled": False}}, False),
        (False, {}, False),
        (False, {"toploc": {"enabled": False}}, False),
        (False, {"toploc": {"enabled": True}}, True),
        (False, {"toploc": {"prompt_token_ids": True}}, False),
    ],
)
def test_enabled(default: bool, options: dict[str, Any], proven: bool) -> None:
    response = post(options, Settings(channel="/nowhere", proofs=default)).json()
    assert ("toploc_proofs" in response, response["in_context"]) == (proven, proven)


def test_prompt_token_ids() -> None:
    assert "token_ids" not in post({}).json()["toploc_proofs"]["prompt"]
    field = post({"toploc": {"prompt_token_ids": True}}).json()["toploc_proofs"]
    assert field["prompt"]["token_ids"] == [1, 2, 3]


SECRET = "what the client sent"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"enabled": SECRET}, "toploc.enabled"),
        ({"enabled": "false"}, "toploc.enabled"),
        ({"enabled": 0}, "toploc.enabled"),
        ({"enabled": {SECRET: 1}}, "toploc.enabled"),
        ({"prompt_token_ids": SECRET}, "toploc.prompt_token_ids"),
        ({"prompt_token_ids": None}, "toploc.prompt_token_ids"),
        ({SECRET: True}, "toploc"),
        ({SECRET * 10_000: 1}, "toploc"),
        ({"enabled": True, "\ud800": 1}, "toploc"),
        (SECRET, "toploc"),
        ([SECRET], "toploc"),
        (True, "toploc"),
        (1.5, "toploc"),
    ],
)
def test_wrong_options(options: Any, param: str) -> None:
    response = post_bytes(json.dumps({"toploc": options}).encode())
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, "invalid_value")
    assert error["message"].startswith(f"{param}: ")
    assert "enabled, prompt_token_ids" in error["message"]
    assert SECRET not in response.text


def test_options_are_read_wherever_vllm_reads_the_request() -> None:
    """vLLM takes what `json` takes, which is more than JSON; options must not be lost on the way."""
    off = '"toploc":{"enabled":false}'
    for body in (f'{{"x":NaN,{off}}}', f'{{"x":"\\ud83d",{off}}}', f'{{"x":{"9" * 400},{off}}}'):
        assert post_bytes(body.encode()).json()["in_context"] is False
    assert post_bytes(f"{{{off}}}".encode("utf-16")).json()["in_context"] is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"toploc"',
        b"[[",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe\x00",
        b'[{"toploc":{"unknown":1}}]',
    ],
)
def test_what_is_no_object_is_vllms_to_refuse(body: bytes) -> None:
    assert post_bytes(body).json()["body"] == body.decode("latin-1")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"use_beam_search": True}, "beam_search"),
        ({"echo": True, "max_tokens": 0}, "no_output"),
    ],
)
def test_what_cannot_be_proven_says_so(body: dict[str, Any], code: str) -> None:
    assert post(body).json()["toploc_proofs"]["error"]["code"] == code
    assert post(body, Settings(channel="/nowhere", on_error=OnError.FAIL)).json()["error"]["code"] == code


@pytest.mark.parametrize("body", [{"use_beam_search": False}, {"echo": True}, {"max_tokens": 0}])
def test_what_can_be_proven(body: dict[str, Any]) -> None:
    assert "choices" in post(body).json()["toploc_proofs"]


# Bodies


class Wire:
    """One raw request: `receive` plays messages, and says so when the application waits for more."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> Any:
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def run(self, app: Starlette, path: str) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "server": ("server", 80),
            "scheme": "http",
        }
        asyncio.run(app(scope, self.receive, self.send))


def body_part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_in_pieces_reaches_the_application_in_the_same_pieces() -> None:
    pieces = [body_part(b'{"a":"\xc3'), body_part(b""), body_part(b'\xa9","toploc":{"enabled":'), body_part(b"false}}")]
    pieces[-1]["more_body"] = False
    seen = []

    async def watch(request: Request) -> Response:
        seen.extend([await request.receive() for _ in range(5)])
        return JSONResponse({"in_context": current.get() is not None})

    wire = Wire(*pieces)
    wire.run(application(watch=watch), "/watch")
    assert seen == [*pieces, {"type": "http.disconnect"}]
    assert wire.sent[1]["body"] == b'{"in_context":false}'


def test_huge_body() -> None:
    wire = Wire(*[body_part(p) for p in [b'{"x":"', *[b"y" * 65536] * 20]], body_part(b'"}', more=False))
    wire.run(application(), "/chat")
    answer = json.loads(wire.sent[1]["body"])
    assert len(answer["body"]) == 20 * 65536 + 8
    assert "toploc_proofs" in answer


def test_message_without_keys() -> None:
    wire = Wire({"type": "http.request"})
    wire.run(application(), "/chat")
    assert json.loads(wire.sent[1]["body"])["body"] == ""


@pytest.mark.parametrize("before", [[], [body_part(b'{"mess')], [body_part(b"{}")]])
def test_client_leaves_before_the_body_is_there(before: list[dict[str, Any]]) -> None:
    wire = Wire(*before, {"type": "http.disconnect"}, {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        wire.run(application(), "/chat")
    assert [message for message in wire.sent if message.get("status") == 200] == []
    assert current.get() is None


def test_client_leaves_after_the_body() -> None:
    """The application hears of it, as it would without us."""
    heard = []

    async def wait(request: Request) -> Response:
        await request.body()
        heard.append(await request.is_disconnected())
        return JSONResponse({})

    wire = Wire(body_part(b"{}", more=False), {"type": "http.disconnect"})
    wire.run(application(wait=wait), "/wait")
    assert heard == [True]


def test_client_leaves_during_the_stream() -> None:
    """Starlette cancels the stream when it hears of it, and the generator is closed."""
    closed = []

    async def endless(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            generate()
            try:
                while True:
                    yield "data: {}\n\n"
                    await asyncio.sleep(0)
            finally:
                closed.append(current.get() is not None)

        return StreamingResponse(events(), media_type="text/event-stream")

    wire = Wire(body_part(b"{}", more=False), {"type": "http.disconnect"})
    wire.run(application(endless=endless), "/endless")
    assert closed == [True]


def test_requests_at_once_do_not_see_each_other() -> None:
    barrier = asyncio.Barrier(8)

    async def together(request: Request) -> Response:
        n = (await request.json())["n"]
        await barrier.wait()
        generate(n)
        await barrier.wait()
        return JSONResponse({})

    async def run() -> list[int]:
        transport = httpx.ASGITransport(application(together=together))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answers = await asyncio.gather(*(client.post("/together", json={"n": n}) for n in range(1, 9)))
        return [len(answer.json()["toploc_proofs"]["choices"]) for answer in answers]

    assert asyncio.run(run()) == list(range(1, 9))
