"""Several schedulers, ranks and processes that serve HTTP: an answer's proofs come from where it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from asking import Api
from many_answers import hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from toploc_proxy.local_server import LocalServer

pytestmark = pytest.mark.sglang_all

# A core for each rank: else SGLang wants as many NUMA nodes as ranks.
A_CORE_EACH = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--dp-size", "2"], A_CORE_EACH),
        (["--tp-size", "2"], A_CORE_EACH),
        (["--tokenizer-worker-num", "2"], {}),
    ],
    ids=["data parallel", "tensor parallel", "tokenizer workers"],
)
def test_topologies(
    launch: Callable[..., LocalServer], verified: Callable[..., Any], options: list[str], environment: dict[str, str]
) -> None:
    with launch(*options, **environment) as server, Api(server.url) as api:
        hold(api, verified, 16)
        said = api.http.get("/v1/toploc").json()["engine"]
        assert said.get("tensor_parallel", 1) == (2 if "--tp-size" in options else 1)
