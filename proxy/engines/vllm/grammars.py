"""vLLM's own grammar back ends, beside the engine's: which tokens a grammar leaves at each place of an answer."""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from vllm.v1.request import Request

from toploc.errors import ToplocError

from ..guards import load, require_members
from . import reliances

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from vllm.config import VllmConfig
    from vllm.v1.engine import EngineCoreRequest

COMPILE_SECONDS: Final = 20.0
"""To compile one grammar. Stops schemas and expressions that take for ever, which strangers may send; vLLM itself has a
limit for expressions alone (VLLM_REGEX_COMPILATION_TIMEOUT_S). The thread that compiles goes on, as the engine's."""

POLL_SECONDS: Final = 0.002
"""Between looks at whether a grammar is compiled."""

AUTO: Final = ("xgrammar", "guidance")
"""What `--structured-outputs-config.backend auto` comes to. An engine keeps the one that its first request chose
(vllm/v1/structured_output/__init__.py, `grammar_init`), so another server may have masked by the other."""


class Unfollowed(ToplocError):
    """A grammar that this verifier cannot follow an answer through."""


class Uncompiled(Unfollowed):
    """A grammar that a back end does not take."""


class Grammars:
    """Grammars of requests, each by the back end that a request names. For one thread.

    Raises:
        UnsupportedEngine: there is no manager of back ends of the form that is known.
    """

    def __init__(self, config: VllmConfig) -> None:
        self._manager = load(reliances.GRAMMARS)
        require_members(self._manager, reliances.GRAMMARS)
        self._config = config
        self._managers: dict[str, Any] = {}

    def follow(self, request: EngineCoreRequest, alternative: int) -> Followed:
        """The grammar of a request that vLLM's input processor has checked, by its back end or an `alternative`.

        Raises:
            Uncompiled: the back end does not take the grammar.
            Unfollowed: it does not compile in time.
        """
        chosen = copy(request)
        chosen.sampling_params = copy(request.sampling_params)
        options = chosen.sampling_params.structured_outputs = copy(request.sampling_params.structured_outputs)
        options._backend = backends_of(request)[alternative]
        try:
            if options._backend not in self._managers:
                self._managers[options._backend] = self._manager(self._config)
            return Followed(self._managers[options._backend], Request.from_engine_core_request(chosen, None))
        except Unfollowed:
            raise
        except Exception as error:
            # Compilers of foreign grammars: anything may come out.
            raise Uncompiled(f"{options._backend} does not compile the grammar: {type(error).__name__}") from error


class Followed:
    """One answer on its way through its grammar.

    Raises:
        Unfollowed: see `Grammars.follow`.
    """

    def __init__(self, manager: Any, request: Request) -> None:
        self._manager, self._request = manager, request
        deadline = time.monotonic() + COMPILE_SECONDS
        manager.grammar_init(request)
        compiled = request.structured_output_request
        while not compiled.is_grammar_ready:
            if time.monotonic() > deadline:
                raise Unfollowed(f"the grammar does not compile within {COMPILE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        if isinstance(compiled.grammar, Exception):
            raise compiled.grammar

    def mask(self) -> NDArray[np.int32]:
        """Which tokens are left now, int32[words], valid until the next call: all, while the answer still reasons, and
        after the grammar's end. Raises Unfollowed if the back end fails."""
        name = self._request.request_id
        try:
            mask: NDArray[np.int32] = self._manager.grammar_bitmask({name: self._request}, [name], {})[0]
        except Exception as error:
            # Programs made of foreign grammars: anything may come out.
            raise Unfollowed(f"the grammar's back end failed: {type(error).__name__}") from error
        return mask

    def accept(self, token: int) -> None:
        """Goes on by one token. Raises Unfollowed if the back end does not."""
        self._request.append_output_token_ids([token])
        if not self._manager.accept_tokens(self._request, [token]):
            raise Unfollowed("the grammar leaves a token that it does not take")


def backends_of(request: EngineCoreRequest) -> list[str]:
    """The back ends that may have masked an answer, the likeliest first: the request's, as vLLM's input processor chose
    it, and where it chose by itself, those that another server may have."""
    options = request.sampling_params.structured_outputs
    chosen = str(options._backend)
    return [chosen, *(name for name in AUTO if name != chosen and options._backend_was_auto)]
