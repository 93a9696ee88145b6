from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from toploc_proxy.channel.tag import EXTRA_ARG, Tag

SECRET = "s" * 64
TAGS = st.builds(
    Tag,
    nonce=st.text(st.characters(codec="utf-8"), max_size=40),
    children=st.integers(1, 2**63),
    start=st.none() | st.integers(-(2**63), 2**63),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False)
    # Lone surrogates too: "\ud800" is valid JSON.
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def carried(tag: Tag, **changes: object) -> dict[str, object]:
    """`extra_args` as the worker gets them, after a way through JSON types."""
    return json.loads(json.dumps({EXTRA_ARG: {**tag.seal(SECRET), **changes}, "other": 1}))


def test_nonces_are_random() -> None:
    assert len({Tag.new().nonce for _ in range(100)}) == 100
    assert len(bytes.fromhex(Tag.new().nonce)) == 16


@given(TAGS)
def test_sealed_tag_opens_to_itself(tag: Tag) -> None:
    assert Tag.open(carried(tag), SECRET) == tag


@given(TAGS, TAGS)
def test_mac_of_another_tag_opens_nothing(tag: Tag, other: Tag) -> None:
    opened = Tag.open(carried(tag, mac=other.seal(SECRET)["mac"]), SECRET)
    assert opened == (tag if tag == other else None)


def test_other_secret_opens_nothing() -> None:
    assert Tag.open(carried(Tag.new()), SECRET[:-1]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "0" * 32},
        {"children": 2},
        {"start": 0},
        {"start": 7},
        {"mac": "0" * 64},
        {"mac": ""},
    ],
)
def test_changed_field_opens_nothing(change: dict[str, object]) -> None:
    assert Tag.open(carried(Tag.new(), **change), SECRET) is None


@pytest.mark.parametrize("name", ["nonce", "children", "mac"])
def test_missing_field_opens_nothing(name: str) -> None:
    sealed = Tag.new().seal(SECRET)
    del sealed[name]
    assert Tag.open({EXTRA_ARG: sealed}, SECRET) is None


@given(st.sampled_from(["nonce", "children", "start", "mac"]), JSON)
@example("nonce", "\ud800")
@example("mac", "\ud800")
@example("mac", "ä")
@example("children", True)
def test_forged_field_of_any_json_type_opens_nothing(name: str, value: object) -> None:
    tag = replace(Tag.new(), start=5)
    sealed = tag.seal(SECRET)
    if value != sealed[name] or type(value) is not type(sealed[name]):
        assert Tag.open({EXTRA_ARG: {**sealed, name: value}}, SECRET) is None


@given(JSON)
def test_forged_value_of_any_json_type_opens_nothing(value: object) -> None:
    assert Tag.open({EXTRA_ARG: value}, SECRET) is None


@pytest.mark.parametrize("extra_args", [None, {}, {"toploc_": {}}])
def test_no_tag(extra_args: dict[str, object] | None) -> None:
    assert Tag.open(extra_args, SECRET) is None


@pytest.mark.parametrize(
    ("children", "request_id", "index"),
    [
        (1, "cmpl-1f_2e-0", 0),
        (1, "3_cmpl-of-the-client", 0),
        (2, "0_cmpl-1f", 0),
        (2, "1_7_cmpl_with_underscores-0-a1b2c3d4", 1),
        (128, "127_x", 127),
        (2, "cmpl-1f_1", None),
        (2, "-1_x", None),
        (2, "²_x", None),
        (2, "_x", None),
        (2, "", None),
    ],
)
def test_child_index(children: int, request_id: str, index: int | None) -> None:
    assert Tag.new(children=children).child_index(request_id) == index


def test_child_index_agrees_with_vllm() -> None:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.parallel_sampling import ParentRequest

    request = EngineCoreRequest(
        request_id="2_my_own_id",
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=SamplingParams(n=3),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        external_req_id="2_my_own_id",
    )
    parent = ParentRequest(request)
    tag = Tag.new(children=3)
    assert [tag.child_index(parent.get_child_info(i)[0]) for i in range(3)] == [0, 1, 2]
