"""Responses that are fetched by id: made in the background, or stored, as a JSON object or a resumed stream."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from states import server
from toploc_proxy.answers.context import Call, RequestContext, Served, current
from toploc_proxy.answers.later import EXPIRED, Answer, Later
from toploc_proxy.answers.middleware import ProofMiddleware
from toploc_proxy.receipts.signing import Signer
from toploc_proxy.routes import router
from toploc_proxy.settings import OnError, Settings
from toploc_proxy.stores.receipts import MemoryStore

from toploc.protocol import ChoiceProofs, ProofError, RequestOptions
from toploc.receipts.keys import SigningKey
from toploc.receipts.receipt import verify_receipt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

KEY = SigningKey.of(Ed25519PrivateKey.generate())
ID = "resp_0123456789abcdef"
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": "42."}]}]


class Engine:
    """vLLM's route as far as it matters: POST begins a response, and GET tells how it stands."""

    def __init__(self, *, fails: bool = False) -> None:
        self.status = "queued"
        self.go_on = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._fails = fails

    def body(self) -> dict[str, Any]:
        output = OUTPUT if self.status == "completed" else []
        return {"id": ID, "object": "response", "created_at": 7, "status": self.status, "output": output}

    async def _generate(self) -> None:
        context = current.get()
        await self.go_on.wait()
        if context is not None:
            error = ProofError(code="rows_missing", message="why") if self._fails else None
            choice = ChoiceProofs(index=0, token_ids=(7,), proofs=None if error else ("p",), error=error)
            context.calls.append(Call("model", 1, None, [1, 2], {0: choice}, request_id=f"{ID}_0"))
            context.settled = True
        self.status = "completed"

    async def _events(self) -> AsyncIterator[str]:
        yield f"event: response.created\ndata: {json.dumps({'type': 'response.created', 'response': self.body()})}\n\n"
        await self.go_on.wait()
        while self.status != "completed":
            await asyncio.sleep(0)
        end = {"type": "response.completed", "response": self.body()}
        yield f"event: response.completed\ndata: {json.dumps(end)}\n\n"

    async def post(self, request: Request) -> Response:
        body = await request.json()
        self.task = asyncio.create_task(self._generate())
        if not body.get("background"):
            self.go_on.set()
            await self.task
        if body.get("stream"):
            return StreamingResponse(self._events(), media_type="text/event-stream")
        return JSONResponse(self.body())

    async def get(self, request: Request) -> Response:
        if request.query_params.get("stream"):
            return StreamingResponse(self._events(), media_type="text/event-stream")
        return JSONResponse(self.body())

    async def finish(self) -> None:
        self.go_on.set()
        assert self.task is not None
        await self.task

    def application(self, on_error: OnError = OnError.REPORT, later: Later | None = None) -> FastAPI:
        app = FastAPI()
        app.include_router(router)
        app.router.routes += [
            Route("/v1/responses", self.post, methods=["POST"]),
            Route("/v1/responses/{id}", self.get, methods=["GET"]),
        ]
        app.add_middleware(ProofMiddleware, settings=Settings(channel="/nowhere", on_error=on_error))
        app.state.toploc = server(signer=Signer(KEY, (KEY.public,), MemoryStore()), later=later or Later())
        return app


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


@pytest.mark.parametrize("on_error", OnError)
def test_a_response_in_the_background(on_error: OnError) -> None:
    """No failure before there is an answer, and the same field however often it is fetched then."""
    request = {"input": "x", "background": True}

    async def run() -> None:
        engine = Engine()
        async with client(engine.application(on_error)) as http:
            for pending in (await http.post("/v1/responses", json=request), await http.get(f"/v1/responses/{ID}")):
                assert (pending.status_code, pending.json()) == (200, engine.body())
            assert (await http.get(f"/v1/toploc/proofs/{ID}")).json()["error"]["code"] == "proofs_unknown"
            await engine.finish()
            first, second = [(await http.get(f"/v1/responses/{ID}")).json() for _ in range(2)]
            assert first == second
            assert [c["token_ids"] for c in first["toploc_proofs"]["choices"]] == [[7]]
            assert [result.reason for result in verify_receipt(request, first, [KEY.public])] == [None]
            kept = (await http.get(f"/v1/toploc/proofs/{ID}")).json()
            assert kept == {"id": ID, "toploc_proofs": first["toploc_proofs"]}
            receipts = (await http.get(f"/v1/toploc/receipts/{ID}")).json()["receipts"]
            assert receipts == [first["toploc_proofs"]["choices"][0]["receipt"]]

    asyncio.run(run())


def test_a_stream_that_is_left_and_resumed() -> None:
    request = {"input": "x", "background": True, "stream": True}

    async def run() -> None:
        engine = Engine()
        app = engine.application()

        async def leave() -> None:
            """The first event, and away."""
            body = json.dumps(request).encode()
            scope = {"type": "http", "method": "POST", "path": "/v1/responses", "query_string": b"", "headers": []}
            parts = iter([{"type": "http.request", "body": body}])
            begun = asyncio.Event()

            async def receive() -> Any:
                part = next(parts, None)
                return part or await asyncio.Event().wait()

            async def send(message: Any) -> None:
                if message.get("body"):
                    begun.set()

            task = asyncio.create_task(app(scope, receive, send))
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await leave()
        await engine.finish()
        async with client(app) as http:
            text = (await http.get(f"/v1/responses/{ID}?stream=true&starting_after=0")).text
            whole = (await http.get(f"/v1/responses/{ID}")).json()
        last = json.loads(text.split("data: ")[-1])["response"]
        assert last == whole
        assert [result.reason for result in verify_receipt(request, whole, [KEY.public])] == [None]

    asyncio.run(run())


@pytest.mark.parametrize(("fails", "on_error", "status"), [(True, OnError.REPORT, 200), (True, OnError.FAIL, 500)])
def test_an_answer_without_proofs_says_so_when_it_is_fetched(fails: bool, on_error: OnError, status: int) -> None:
    async def run() -> None:
        engine = Engine(fails=fails)
        async with client(engine.application(on_error)) as http:
            await http.post("/v1/responses", json={"input": "x", "background": True})
            await engine.finish()
            found = await http.get(f"/v1/responses/{ID}")
        assert found.status_code == status
        assert "rows_missing" in found.text

    asyncio.run(run())


def test_a_stored_response_has_the_field_of_its_first_reply() -> None:
    async def run() -> None:
        engine = Engine()
        async with client(engine.application()) as http:
            first = (await http.post("/v1/responses", json={"input": "x"})).json()
            assert first["toploc_proofs"]["choices"][0]["receipt"]
            assert (await http.get(f"/v1/responses/{ID}")).json() == first

    asyncio.run(run())


@pytest.mark.parametrize("body", [{"store": False}, {"toploc": {"enabled": False}, "request_id": ID}])
def test_what_is_not_stored_or_not_proven_passes(body: dict[str, Any]) -> None:
    """A response takes the place of another with its id, and the other's proofs are not its own."""
    later = Later()
    later.keep(ID, Answer(RequestContext(Served("model", "bfloat16", None), RequestOptions()), None))
    if "store" in body:
        later.forget(ID)

    async def run() -> None:
        engine = Engine()
        async with client(engine.application(later=later)) as http:
            await http.post("/v1/responses", json={"input": "x", **body})
            assert (await http.get(f"/v1/responses/{ID}")).json() == engine.body()

    asyncio.run(run())


@pytest.mark.parametrize(("on_error", "status"), [(OnError.REPORT, 200), (OnError.FAIL, 500)])
def test_proofs_that_are_no_longer_there(on_error: OnError, status: int) -> None:
    later = Later(limit=1)

    async def run() -> tuple[httpx.Response, str]:
        engine = Engine()
        async with client(engine.application(on_error, later)) as http:
            await http.post("/v1/responses", json={"input": "x"})
            later.keep("resp_other", Answer(RequestContext(Served("m", "bfloat16", None), RequestOptions()), None))
            found = await http.get(f"/v1/responses/{ID}")
            return found, (await http.get(f"/v1/responses/{ID}?stream=true")).text

    found, stream = asyncio.run(run())
    assert found.status_code == status
    for text in (found.text, stream):
        assert EXPIRED.message in text


def test_how_much_is_kept() -> None:
    answer = Answer(RequestContext(Served("m", "bfloat16", None), RequestOptions()), None)
    later = Later(limit=2, remembered=3)
    for number in range(10):
        later.keep(str(number), answer)
    assert [later.get(str(number)) for number in range(10)] == [*[None] * 5, *[EXPIRED] * 3, answer, answer]
    later.keep("9", answer)
    assert later.get("8") is answer
