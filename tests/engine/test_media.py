"""Prompts with images, video and audio: answers are proven, and bound to the media that were sent."""

from __future__ import annotations

import base64
import importlib.util
import io
import threading
import wave
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from models import media
from toploc.evidence.assembly import Assembly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asking import Api
    from toploc_proxy.local_server import LocalServer

    from toploc.receipts.keys import PublicKey

KINDS = [
    "idefics3",
    "paddleocr_vl",
    pytest.param(
        "qwen2_5_vl", marks=pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="needs torchvision")
    ),
]
GREEDY = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.make(kind, tmp_path_factory.mktemp("media") / kind)


@pytest.fixture(scope="module")
def seeing(
    model: Path, launch: Callable[..., LocalServer], signing: tuple[Path, PublicKey], api_of: type[Api]
) -> Iterator[Api]:
    key = str(signing[0])
    options = ["--toploc-signing-key", key, "--toploc-trusted-keys", key, "--allowed-media-domains", "127.0.0.1"]
    with launch(*options, model=model) as server, api_of(server.url) as api:
        yield api


def picture(seed: int, width: int = 84, height: int = 56, form: str = "PNG") -> bytes:
    """Squares of random colours."""
    squares = np.random.default_rng(seed).integers(0, 256, (height // 14, width // 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(squares).resize((width, height), Image.Resampling.NEAREST).save(file, form)
    return file.getvalue()


def url(seed: int, **options: Any) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture(seed, **options)).decode()}"


def asking(*urls: str, text: str = "What is it?", **part: Any) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": one}, **part} for one in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def check(report: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in report["checks"] if one["name"] == name]
    return found


def claimed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return answer["toploc_proofs"]["prompt"]["media"]


HONEST = {
    "one": {"messages": asking(url(0))},
    "of another size": {"messages": asking(url(1, width=112, height=140))},
    "several": {"messages": asking(url(0), url(2), url(0, width=28))},
    "in two turns": {
        "messages": [*asking(url(0)), {"role": "assistant", "content": "Red."}, *asking(url(3), text="And this?")]
    },
    "JPEG": {"messages": asking(f"data:image/jpeg;base64,{base64.b64encode(picture(4, form='JPEG')).decode()}")},
    "choices": {"messages": asking(url(5)), "n": 2, "temperature": 1, "seed": 7},
    "sampled": {"messages": asking(url(6)), "temperature": 1, "max_tokens": 100},
    "log-probabilities": {"messages": asking(url(7)), "logprobs": True, "top_logprobs": 2},
    "text alone": {"messages": [{"role": "user", "content": "What is it?"}]},
}


@pytest.mark.parametrize("name", HONEST)
def test_answers_are_accepted(seeing: Api, name: str) -> None:
    body = {**GREEDY, **HONEST[name]}
    answer = seeing.post("/v1/chat/completions", **body)
    assert ("media" in answer["toploc_proofs"]["prompt"]) is (name != "text alone")
    report = seeing.report(answer, **body)
    assert report["verdict"] == "accepted", str(report)
    assert {one["status"] for one in report["checks"] if one["name"] == "receipt"} == {"passed"}


def test_places_are_those_of_the_prompt(seeing: Api) -> None:
    body = {**GREEDY, "messages": asking(url(0), url(2), url(0)), "toploc": {"prompt_token_ids": True}}
    answer = seeing.post("/v1/chat/completions", **body)
    first, second, third = claimed(answer)
    assert first["sha256"] == third["sha256"] != second["sha256"]
    ids = answer["toploc_proofs"]["prompt"]["token_ids"]
    places = [ids[one["offset"] : one["offset"] + one["length"]] for one in (first, second, third)]
    assert places[0] == places[1] == places[2]
    assert 0 < first["offset"] < second["offset"] < third["offset"] < len(ids)


def test_streams(seeing: Api) -> None:
    body = {**GREEDY, "messages": asking(url(8), url(9))}
    assembly = Assembly()
    for event in seeing.stream("/v1/chat/completions", **body):
        assembly.add(event)
    report = seeing.report(assembly.response(), stream=True, **body)
    assert report["verdict"] == "accepted", str(report)


def test_responses(seeing: Api) -> None:
    parts = [{"type": "input_image", "image_url": url(10), "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    body = {"input": [{"role": "user", "content": parts}], "temperature": 0, "max_output_tokens": 40}
    answer = seeing.post("/v1/responses", **body)
    assert len(claimed(answer)) == 1
    report = seeing.report(answer, **body)
    assert report["verdict"] == "accepted", str(report)


def test_messages(seeing: Api) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture(11)).decode()}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    body = {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 40}
    answer = seeing.post("/v1/messages", **body)
    assert len(claimed(answer)) == 1
    report = seeing.report(answer, **body)
    assert report["verdict"] == "accepted", str(report)
    source["data"] = base64.b64encode(picture(12)).decode()
    report = seeing.report(answer, **body)
    assert (report["verdict"], check(report, "prompt")["reason"]) == ("rejected", "media_differ"), report


def test_a_cached_image_is_proven_as_well(seeing: Api) -> None:
    """The second time the processor has it, the encoder too, and most of the prompt is in the prefix cache."""
    # The CPU engine caches blocks of 128 tokens.
    body = {**GREEDY, "messages": asking(url(13, width=140, height=140), text="What is it, and where? " * 20)}
    first = seeing.post("/v1/chat/completions", **body)
    hits = seeing.metric("vllm:prefix_cache_hits_total")
    second = seeing.post("/v1/chat/completions", **body)
    assert seeing.metric("vllm:prefix_cache_hits_total") > hits
    assert claimed(first) == claimed(second)
    for answer in (first, second):
        report = seeing.report(answer, **body)
        assert report["verdict"] == "accepted", str(report)


def test_a_verification_that_ends_before_its_prefill_leaves_nothing_behind(seeing: Api) -> None:
    """The server's processor sends an image to the engine once. Under the image's own name the engine would have been
    sent nothing, and would have nothing for whoever asks about it."""
    answer = seeing.post("/v1/chat/completions", **GREEDY, messages=asking(url(14)))
    answer["toploc_proofs"]["choices"][0]["token_ids"][0] = 2**31
    body = {**GREEDY, "messages": asking(url(15))}
    report = seeing.report(answer, **body)
    assert report["verdict"] == "rejected"
    assert "proofs" not in {one["name"] for one in report["checks"]}, report
    report = seeing.report(seeing.post("/v1/chat/completions", **body), **body)
    assert report["verdict"] == "accepted", str(report)


def test_a_clients_name_does_not_stand_for_what_it_sent_before(seeing: Api) -> None:
    """It answered one image, which the cache has under a name of the client's, and claims another of that name."""
    asked = {**GREEDY, "messages": asking(url(26), uuid="taken")}
    seeing.post("/v1/chat/completions", **asked)
    answer = seeing.post("/v1/chat/completions", **GREEDY, messages=asking(url(26)))
    claim = {**GREEDY, "messages": asking(url(27))}
    answer["toploc_proofs"]["prompt"] = seeing.post("/v1/chat/completions", **claim)["toploc_proofs"]["prompt"]
    report = seeing.report(answer, **GREEDY, messages=asking(url(27), uuid="taken"))
    assert check(report, "prompt")["status"] == "passed", report
    assert check(report, "proofs")["reason"] == "activations", report


def test_another_image_of_the_same_size_is_rejected(seeing: Api) -> None:
    answer = seeing.post("/v1/chat/completions", **GREEDY, messages=asking(url(16)))
    report = seeing.report(answer, **GREEDY, messages=asking(url(17)))
    assert (report["verdict"], check(report, "prompt")["reason"]) == ("rejected", "media_differ"), report


def test_a_digest_alone_proves_nothing(seeing: Api) -> None:
    """It answered one image, and claims the other, which the request has."""
    answer = seeing.post("/v1/chat/completions", **GREEDY, messages=asking(url(16)))
    asked = {**GREEDY, "messages": asking(url(17))}
    answer["toploc_proofs"]["prompt"] = seeing.post("/v1/chat/completions", **asked)["toploc_proofs"]["prompt"]
    report = seeing.report(answer, **asked)
    assert report["verdict"] == "rejected"
    assert check(report, "prompt")["status"] == "passed"
    assert check(report, "proofs")["reason"] == "activations", report


@pytest.mark.parametrize("change", ["none", "one of two", "in another order"])
def test_media_that_were_left_out_or_moved(seeing: Api, change: str) -> None:
    body = {**GREEDY, "messages": asking(url(18), url(19))}
    answer = seeing.post("/v1/chat/completions", **body)
    found = claimed(answer)
    match change:
        case "none":
            del answer["toploc_proofs"]["prompt"]["media"]
        case "one of two":
            found.pop()
        case "in another order":
            found[0]["sha256"], found[1]["sha256"] = found[1]["sha256"], found[0]["sha256"]
    report = seeing.report(answer, **body)
    assert (report["verdict"], check(report, "prompt")["reason"]) == ("rejected", "media_differ"), report


def test_what_clients_name_is_not_proven_and_is_nobody_elses(seeing: Api, model: Path) -> None:
    """vLLM keeps an image under the client's `uuid`. One may have sent another under this name, or named it as vLLM
    itself would call the other's image."""
    from vllm.multimodal.hasher import MultiModalHasher
    from vllm.multimodal.media.image import ImageMediaIO

    image = ImageMediaIO().load_bytes(picture(20))
    own = MultiModalHasher.hash_kwargs("blake3", model_id=str(model), image=image)
    for name in ("mine", own):
        answer = seeing.post("/v1/chat/completions", **GREEDY, messages=asking(url(21), uuid=name))
        assert answer["toploc_proofs"]["error"]["code"] == "unsupported_prompt"
    body = {**GREEDY, "messages": asking(url(20))}
    answer = seeing.post("/v1/chat/completions", **body)
    for asked in (body, {**body, "messages": asking(url(20), uuid="mine")}):
        report = seeing.report(answer, **asked)
        unsigned = [one for one in report["checks"] if one["name"] not in ("receipt",)]
        assert {one["status"] for one in unsigned} <= {"passed", "weak", "skipped"}, report


class Web(ThreadingHTTPServer):
    """Gives what it is told to, or 404."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        super().__init__(("127.0.0.1", 0), Page)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/image.png"


class Page(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        content = self.server.content
        self.send_response(404 if content is None else 200)
        self.send_header("content-length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web() -> Iterator[Web]:
    server = Web()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_an_address_leads_to(seeing: Api) -> None:
    """It counts as it was when the server fetched it; another later, or nothing, accuses nobody."""
    with web() as server:
        server.content = picture(22)
        body = {**GREEDY, "messages": asking(server.url, url(23))}
        answer = seeing.post("/v1/chat/completions", **body)
        assert seeing.report(answer, **body)["verdict"] == "accepted"
        for content, reason in {
            picture(24): "media_changed",
            picture(24, width=140): "media_changed",
            b"none": "media_unavailable",
            None: "media_unavailable",
        }.items():
            server.content = content
            report = seeing.report(answer, **body)
            assert (report["verdict"], check(report, "prompt")["reason"]) == ("undecided", reason), report
            assert not [one for one in report["checks"] if one["status"] == "failed"]
        server.content = picture(22)
        swapped = {**GREEDY, "messages": asking(server.url, url(25))}
        assert check(seeing.report(answer, **swapped), "prompt")["reason"] == "media_differ"
        elsewhere = {**GREEDY, "messages": asking(server.url.replace("127.0.0.1", "localhost"), url(23))}
        assert check(seeing.report(answer, **elsewhere), "prompt")["reason"] == "media_unavailable"


def test_video(seeing: Api, kind: str) -> None:
    if kind != "qwen2_5_vl":
        pytest.skip("takes no video")

    def video(*seeds: int) -> list[dict[str, Any]]:
        frames = ",".join(base64.b64encode(picture(seed, form="JPEG")).decode() for seed in seeds)
        part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
        return [{"role": "user", "content": [part, {"type": "text", "text": "What happens?"}]}]

    body = {**GREEDY, "messages": video(1, 2, 3, 4)}
    answer = seeing.post("/v1/chat/completions", **body)
    [one] = claimed(answer)
    assert one["modality"] == "video"
    report = seeing.report(answer, **body)
    assert report["verdict"] == "accepted", str(report)
    report = seeing.report(answer, **GREEDY, messages=video(1, 2, 3, 5))
    assert (report["verdict"], check(report, "prompt")["reason"]) == ("rejected", "media_differ"), report


@pytest.fixture(scope="module")
def hearing(
    launch: Callable[..., LocalServer], tmp_path_factory: pytest.TempPathFactory, api_of: type[Api]
) -> Iterator[Api]:
    if not importlib.util.find_spec("soundfile"):
        pytest.skip("needs soundfile")
    model = media.make("qwen2_audio", tmp_path_factory.mktemp("media") / "qwen2_audio")
    with launch(model=model) as server, api_of(server.url) as api:
        yield api


def sound(seed: int) -> dict[str, Any]:
    """Half a second of random tones, as the model hears them."""
    seconds = np.arange(8000) / 16000
    tones = np.random.default_rng(seed).uniform(100, 4000, 5)
    samples = sum(np.sin(2 * np.pi * tone * seconds) for tone in tones) / len(tones)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 16000, len(samples), "NONE", ""))
        written.writeframes((samples * 32767).astype("<i2").tobytes())
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"}}


def listening(*seeds: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*map(sound, seeds), {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 1)], ids=["one", "several"])
def test_audio(hearing: Api, seeds: tuple[int, ...]) -> None:
    body = {**GREEDY, "messages": listening(*seeds)}
    answer = hearing.post("/v1/chat/completions", **body)
    assert [one["modality"] for one in claimed(answer)] == ["audio"] * len(seeds)
    again = hearing.post("/v1/chat/completions", **body)
    assert claimed(again) == claimed(answer)
    assembly = Assembly()
    for event in hearing.stream("/v1/chat/completions", **body):
        assembly.add(event)
    for given in (answer, again):
        report = hearing.report(given, **body)
        assert report["verdict"] == "accepted", str(report)
    report = hearing.report(assembly.response(), stream=True, **body)
    assert report["verdict"] == "accepted", str(report)


def test_other_audio_is_not_accepted(hearing: Api) -> None:
    """Its digest is of samples, which another decoder may have made. Under the digest of what was to be heard, proofs
    tell."""
    answer = hearing.post("/v1/chat/completions", **GREEDY, messages=listening(3))
    asked = {**GREEDY, "messages": listening(4)}
    report = hearing.report(answer, **asked)
    assert (report["verdict"], check(report, "prompt")["reason"]) == ("undecided", "media_changed"), report
    answer["toploc_proofs"]["prompt"] = hearing.post("/v1/chat/completions", **asked)["toploc_proofs"]["prompt"]
    report = hearing.report(answer, **asked)
    assert check(report, "prompt")["status"] == "passed"
    assert check(report, "proofs")["reason"] == "activations", report
