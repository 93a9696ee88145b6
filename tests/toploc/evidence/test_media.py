"""What a request carries of its media."""

from __future__ import annotations

import base64
import hashlib

import pytest

from toploc.evidence.media import Carried

DATA = b"\x89PNG and more"
TEXT = base64.b64encode(DATA).decode()
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    "request_body",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}}]}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": f"DATA:image/png;a=b;base64,{TEXT}"}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": TEXT}}]}]},
        {"input": [{"content": [{"type": "input_audio", "input_audio": {"data": TEXT, "format": "wav"}}]}]},
    ],
)
def test_what_is_sent(request_body: object) -> None:
    assert SHA256 in Carried(request_body)


def test_frames_of_a_video_are_one_text() -> None:
    frames = f"{TEXT},{TEXT}"
    found = Carried({"url": f"data:video/jpeg;base64,{frames}"})
    assert hashlib.sha256(frames.encode()).hexdigest() in found


@pytest.mark.parametrize("text", ["https://example.com/a.png", "data:image/png;base64,", "é", TEXT[:-2]])
def test_what_is_not(text: str) -> None:
    assert SHA256 not in Carried([{"image_url": {"url": text}}, 5, None, True])
