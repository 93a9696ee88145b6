"""What receipts cost an API server, part by part, on one core.

python benchmarks/receipts/run.py
"""

from __future__ import annotations

import json
import statistics
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from toploc_proxy.receipts.delivered import Delivered

from toploc.protocol import ChoiceProofs, PromptDigest, ToplocProofs, num_chunks
from toploc.receipts.keys import SigningKey
from toploc.receipts.receipt import verify_receipt
from toploc.receipts.request import body_sha256, request_digest
from toploc.receipts.statement import issue

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes(32)))
TOKENS = 256


def field(tokens: int) -> ToplocProofs:
    proof = b64encode(bytes(258)).decode()
    choice = ChoiceProofs(index=0, token_ids=tuple(range(tokens)), proofs=(proof,) * num_chunks(tokens))
    return ToplocProofs(dtype="bfloat16", model="model", prompt=PromptDigest.of(range(128)), choices=(choice,))


def event(token: int, finish: str | None = None) -> bytes:
    """A chunk as vLLM 0.32 sends it."""
    head = {"id": "chatcmpl-806250e4a06a6a72", "object": "chat.completion.chunk", "created": 1795506999, "model": "m"}
    choice = {
        "index": 0,
        "delta": {"content": f" word{token}"},
        "logprobs": None,
        "finish_reason": finish,
        "token_ids": None,
    }
    return b"data: " + json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


def microseconds(function: Callable[[], Any], repeats: int = 15, number: int = 100) -> float:
    """Of the processor. The median of repeats, each a mean."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(number):
            function()
        times.append((time.process_time() - begin) / number * 1e6)
    return statistics.median(times)


def both(body: bytes) -> tuple[str | None, str]:
    return request_digest(body), body_sha256(body)


def main() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}] * 6, "temperature": 0.7}
    body = json.dumps(chat).encode()
    ids = json.dumps({"model": "m", "prompt": list(range(100_000))}).encode()
    message = {"index": 0, "message": {"role": "assistant", "content": "word " * TOKENS}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 128, "completion_tokens": TOKENS, "total_tokens": 128 + TOKENS}
    response = {"id": "chatcmpl-806250e4a06a6a72", "object": "chat.completion", "created": 1, "choices": [message]}
    response["usage"] = usage
    likeliest = [{"token": f" word{i}", "logprob": -1.25 * i, "bytes": list(b" word0")} for i in range(5)]
    listed = {"content": [{**likeliest[0], "top_logprobs": likeliest}] * TOKENS}
    with_logprobs = {**response, "choices": [{**message, "logprobs": listed}]}
    proofs = field(TOKENS)
    events = [event(i) for i in range(TOKENS)]

    digests = {"request_sha256": request_digest(body), "request_body_sha256": body_sha256(body)}

    def sign(response: dict[str, Any]) -> ToplocProofs:
        return issue(KEY, proofs, response, issued_at=1, **digests)

    def verify() -> None:
        [result] = verify_receipt(chat, signed, [KEY.public])
        assert result.status == "passed"

    def stream(*, read: bool) -> None:
        delivered = Delivered()
        for data in events[:-1]:
            delivered.keep(data)
        if read:
            delivered.response(0)

    signed = {**response, "toploc_proofs": json.loads(sign(response).to_json())}
    kept = microseconds(lambda: stream(read=False)) / TOKENS
    rows = {
        "Ed25519 signature alone": microseconds(lambda: KEY.sign(b"x" * 800)),
        f"receipt of a choice of {TOKENS} tokens, without the request": microseconds(lambda: sign(response)),
        "the same with the five likeliest of each (in a thread)": microseconds(lambda: sign(with_logprobs), 5, 3),
        f"digests of a chat request, {len(body):,} bytes": microseconds(lambda: both(body)),
        f"digests of 100,000 token ids, {len(ids):,} bytes (in a thread)": microseconds(lambda: both(ids), 3, 1),
        "stream: passing a token's event": kept,
        "stream: reading it, when 256 have passed or the choice ends": microseconds(lambda: stream(read=True)) / TOKENS
        - kept,
        f"verifying a receipt of {TOKENS} tokens, with its request": microseconds(verify),
    }
    for name, value in rows.items():
        print(f"| {name} | {value:,.2f} |" if value < 10 else f"| {name} | {value:,.0f} |")


if __name__ == "__main__":
    main()
