"""The points of a chunk: exact, ties to the lower index, the same from every path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toploc import InvalidActivations
from toploc.proofs.topk import top_k, top_k_tensor


def reference(patterns, k):
    magnitudes = (patterns & 0x7FFF).astype(np.int64)
    return np.sort(np.argsort(-magnitudes, kind="stable")[:k])


def chunk(kind, size, random):
    if kind == "gaussian":
        values = torch.from_numpy(random.standard_normal(size, np.float32)).bfloat16()
        return values.view(torch.int16).numpy().view(np.uint16)
    return {
        "bits": lambda: random.integers(0, 2**16, size).astype(np.uint16),
        "zeros": lambda: np.zeros(size, np.uint16),
        "few": lambda: random.integers(0, 3, size).astype(np.uint16) | 0x8000,
        "ascending": lambda: np.sort(random.integers(0, 2**15, size)).astype(np.uint16),
        "descending": lambda: np.sort(random.integers(0, 2**15, size))[::-1].astype(np.uint16),
        "maximum-last": lambda: np.r_[np.zeros(size - 1, np.uint16), np.uint16(0xFFFF)],
    }[kind]()


@pytest.mark.parametrize("kind", ["gaussian", "bits", "zeros", "few", "ascending", "descending", "maximum-last"])
@pytest.mark.parametrize(("size", "k"), [(1, 1), (63, 63), (64, 64), (65, 3), (8192, 128), (163840, 128), (20000, 512)])
def test_agrees_with_a_stable_sort(kind, size, k):
    patterns = chunk(kind, size, np.random.default_rng(size + k))
    indices, winners = top_k(patterns, k)
    assert (indices.dtype, winners.dtype) == (np.int32, np.uint16)
    assert (indices == reference(patterns, k)).all()
    assert (winners == patterns[indices]).all()
    tensor_indices, tensor_patterns = top_k_tensor(torch.from_numpy(patterns.view(np.int16))[None], k)
    assert (tensor_indices.dtype, tensor_patterns.dtype) == (torch.int32, torch.int16)
    assert (tensor_indices[0].numpy() == indices).all()
    assert (tensor_patterns[0].numpy().view(np.uint16) == winners).all()


@settings(deadline=None)
@given(hnp.arrays(np.uint16, st.integers(1, 400), elements=st.integers(0, 0xFFFF)), st.data())
def test_any_patterns(patterns, data):
    k = data.draw(st.integers(1, patterns.size))
    assert (top_k(patterns, k)[0] == reference(patterns, k)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tensor_takes_floats(dtype):
    values = torch.randn(3, 4096, generator=torch.Generator().manual_seed(1)).to(dtype)
    indices, patterns = top_k_tensor(values, 128)
    for row in range(3):
        own = top_k(values[row].view(torch.int16).numpy().view(np.uint16), 128)
        assert (indices[row].numpy() == own[0]).all()
        assert (patterns[row].numpy().view(np.uint16) == own[1]).all()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_elements_beyond_the_count_never_win(as_tensor):
    values = torch.zeros(3, 1000, dtype=torch.bfloat16)
    values[:, 500:] = 9
    counts = torch.tensor([500, 1000, 501]) if as_tensor else [500, 1000, 501]
    indices, _ = top_k_tensor(values, 3, counts)
    assert indices.tolist() == [[0, 1, 2], [500, 501, 502], [0, 1, 500]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["gaussian", "bits", "zeros", "few"])
def test_cuda_agrees_and_never_synchronises(kind):
    random = np.random.default_rng(7)
    patterns = np.stack([chunk(kind, 163840, random) for _ in range(4)]).view(np.int16)
    counts = [5120, 163840, 40000, 128]
    expected = top_k_tensor(torch.from_numpy(patterns), 128, counts)
    on_device = torch.from_numpy(patterns).cuda()
    device_counts = torch.tensor(counts, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [top_k_tensor(on_device, 128, given) for given in (counts, device_counts)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for indices, winners in results:
        assert (indices.cpu() == expected[0]).all()
        assert (winners.cpu() == expected[1]).all()


@pytest.mark.parametrize("k", [0, -1, 11])
def test_refuses_more_than_there_is(k):
    with pytest.raises(InvalidActivations):
        top_k(np.zeros(10, np.uint16), k)
    with pytest.raises(InvalidActivations):
        top_k_tensor(torch.zeros(2, 10, dtype=torch.int16), k)


def test_refuses_other_tensors():
    for tensor in (torch.zeros(10, dtype=torch.int16), torch.zeros(2, 10), torch.zeros(1, 2, 10, dtype=torch.int16)):
        with pytest.raises(InvalidActivations):
            top_k_tensor(tensor, 3)
