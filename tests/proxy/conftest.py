"""Fixtures of the prover's tests. No engine runs here; sockets, recorders and HTTP applications are real."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

# They warn of their own deprecations when they are imported, which is none of ours.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import vllm.engine.arg_utils
    import vllm.outputs
    import vllm.sampling_params  # noqa: F401

from toploc_proxy.channel.addresses import channel_directory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sockets() -> Iterator[str]:
    """A directory for sockets; below pytest's own, their paths could be too long."""
    with channel_directory() as directory:
        yield directory
