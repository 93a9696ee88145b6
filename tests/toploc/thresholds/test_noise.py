"""What a thresholds file says of each channel's honest noise."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import yaml

from toploc.errors import InvalidThresholds
from toploc.pooling.spread import Spread
from toploc.thresholds.bounds import Thresholds
from toploc.thresholds.noise import ChannelNoise
from toploc.thresholds.pooled import PooledBounds

NOISE: dict[str, Any] = {"hidden_size": 4, "usual": 0.5, "channels": {1: 2.0, 3: 0.25}}


def with_noise(noise: dict[str, Any]) -> Thresholds:
    pooled = {"honest": asdict(Spread(0.5, 0.1, 0.1)), "provenance": "a test", "bound": 4.0, "noise": noise}
    return Thresholds.from_dict({**asdict(Thresholds.paper()), "pooled": pooled})


def test_by_channel() -> None:
    assert ChannelNoise.model_validate(NOISE).by_channel.tolist() == [0.5, 2.0, 0.5, 0.25]


def test_a_file_keeps_it() -> None:
    made = with_noise(NOISE)
    assert made.pooled is not None
    assert made.hidden_size == 4
    document = yaml.safe_load(yaml.safe_dump({"pooled": made.pooled.model_dump()}))
    assert PooledBounds.model_validate(document["pooled"]) == made.pooled


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"hidden_size": 0}, r"pooled\.noise\.hidden_size"),
        ({"usual": 0.0}, r"pooled\.noise\.usual"),
        ({"usual": float("inf")}, r"pooled\.noise\.usual"),
        ({"channels": {1: -1.0}}, r"pooled\.noise\.channels\.1"),
        ({"channels": {-1: 1.0}}, r"pooled\.noise\.channels\.-1"),
        ({"channels": {4: 1.0}}, r"channels: 4 is not below hidden_size, 4"),
        ({"scale": 1.0}, r"pooled\.noise\.scale"),
    ],
)
def test_bad_input_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidThresholds, match=field):
        with_noise({**NOISE, **change})


def test_another_models_states() -> None:
    made = with_noise(NOISE)
    made.require_hidden_size(4)
    with pytest.raises(InvalidThresholds, match=r"pooled\.noise\.hidden_size: .* for 4 channels, .* have 576"):
        made.require_hidden_size(576)
    replace(made, pooled=None).require_hidden_size(576)
