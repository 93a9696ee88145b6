"""What proofs say of media, by vLLM's own classes of prompts."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toploc_proxy.engines.vllm.media import KEY, Reading, _digests, _names, media_of, reading, with_media
from vllm.inputs.engine import mm_input
from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO


def picture(color: str, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, form)
    return file.getvalue()


def image(color: str) -> Any:
    return ImageMediaIO().load_bytes(picture(color))


def prompt(digests: dict[str, Any], **places: list[tuple[int, int]]) -> dict[str, Any]:
    ranges = {modality: [PlaceholderRange(*place) for place in found] for modality, found in places.items()}
    hashes = {modality: [f"{modality}-{n}" for n, _ in enumerate(found)] for modality, found in places.items()}
    made: dict[str, Any] = {**mm_input([1] * 20, MultiModalKwargsItems({}), hashes, ranges)}
    return {**made, KEY: digests}


def test_digests_are_of_what_was_sent() -> None:
    frames = ",".join(base64.b64encode(picture(color, "JPEG")).decode() for color in ("red", "blue"))
    video = VideoMediaIO(ImageMediaIO()).load_base64("video/jpeg", frames)
    found = _digests({"image": [image("red"), image("blue")], "video": [video]}, {"image": [None, None]})
    assert found["image"] == [hashlib.sha256(picture(color)).hexdigest() for color in ("red", "blue")]
    assert found["video"] == [hashlib.sha256(frames.encode()).hexdigest()]


def test_audio_is_digested_as_samples() -> None:
    samples = np.array([0.5, -1.0, 0.25], dtype=np.float32)
    data = np.array(16000, dtype="<f8").tobytes() + samples.astype("<f4").tobytes()
    [found] = _digests({"audio": [(samples, 16000)]}, None)["audio"]
    assert found == hashlib.sha256(data).hexdigest()
    [other] = _digests({"audio": [(samples, 8000)]}, None)["audio"]
    assert other != found


@pytest.mark.parametrize("item", [torch.zeros(2, 3), {"image_embeds": torch.zeros(1)}, None, "x"])
def test_what_has_no_digest(item: object) -> None:
    assert _digests({"image": [item]}, None) == {"image": [None]}


def test_what_a_client_names_has_none_but_in_a_rehearsal() -> None:
    items = {"image": [image("red"), image("blue")]}
    first, second = _digests(items, {"image": ["mine", None]})["image"]
    assert first is None
    assert second is not None
    token = reading.set(Reading())
    try:
        assert None not in _digests(items, {"image": ["mine", None]})["image"]
    finally:
        reading.reset(token)


def test_names_of_clients_are_no_digests() -> None:
    own = "0" * 64
    assert _names({"image": [image("red")]}, None) is None
    names = _names({"image": [image("red"), None]}, {"image": [None, own]})
    assert names == {"image": [None, f"client-{own}"]}


def test_a_rehearsal_has_names_of_its_own() -> None:
    token = reading.set(Reading())
    try:
        items = {"image": [image("red"), image("red")]}
        names = [name for _ in range(2) for name in _names(items, {"image": ["mine", None]})["image"]]
    finally:
        reading.reset(token)
    assert len(set(names)) == 4
    assert "mine" not in names


def test_media_stand_in_the_order_of_their_places() -> None:
    digests = {"image": ["1" * 64, "2" * 64], "video": ["3" * 64]}
    found = media_of(prompt(digests, image=[(2, 3), (12, 3)], video=[(6, 4)]))
    assert [(one.modality, one.offset, one.length, one.sha256[0]) for one in found or ()] == [
        ("image", 2, 3, "1"),
        ("video", 6, 4, "3"),
        ("image", 12, 3, "2"),
    ]


@pytest.mark.parametrize(
    "found",
    [
        prompt({}, image=[(2, 3)]),
        prompt({"image": [None]}, image=[(2, 3)]),
        prompt({"image": ["1" * 64]}, image=[(2, 3), (6, 3)]),
        prompt({"image": ["1" * 64]}, image=[(2, 3)], prompt_embeds=[(6, 3)]),
        prompt({}),
        {"type": "multimodal", "mm_placeholders": {"image": [PlaceholderRange(2, 3)]}},
        {"type": "token", "prompt_token_ids": [1]},
        {"prompt_token_ids": [1]},
        "text",
    ],
)
def test_prompts_without_digests(found: Any) -> None:
    assert media_of(found) is None


def test_a_prefill_has_the_media_and_nothing_of_ours() -> None:
    rendered = prompt({"image": ["1" * 64]}, image=[(2, 3)])
    made = with_media({"type": "token", "prompt_token_ids": [1, 2]}, rendered)
    assert made == {
        "type": "multimodal",
        "prompt_token_ids": [1, 2],
        **{name: rendered[name] for name in ("mm_kwargs", "mm_hashes", "mm_placeholders")},
    }
    tokens = {"type": "token", "prompt_token_ids": [1, 2]}
    assert with_media(tokens, {"type": "token", "prompt_token_ids": [1]}) == tokens
