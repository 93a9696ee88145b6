"""SGLang's application with ours around it: in the process of `toploc sglang`, and in each of uvicorn's workers
(`--tokenizer-worker-num`), which import `app` from here."""

from __future__ import annotations

import os
from typing import Any, Final

from sglang.srt.entrypoints import http_server

from ...settings import Settings
from .ending import or_end

HERE: Final = f"{__name__}:app"
"""What uvicorn's workers import."""

THEIRS: Final = "sglang.srt.entrypoints.http_server:app"
"""What SGLang has them import."""


def attach_here() -> None:
    """In the process that SGLang is started in."""
    # From 0.5.23 on SGLang asks the environment, before that it names its own application to uvicorn.
    os.environ["SGLANG_HTTP_SERVER_APP_PATH"] = HERE
    run = http_server.uvicorn.run

    def run_ours(app: Any, *args: Any, **kwargs: Any) -> Any:
        return run(HERE if app == THEIRS else app, *args, **kwargs)

    http_server.uvicorn.run = run_ours
    _attach(os.getpid())


def _attach(main: int) -> None:
    settings = Settings.from_environ()
    if settings is None:
        return
    with or_end(main):
        from .startup import attach_to

        attach_to(http_server.app, settings, main)


def __getattr__(name: str) -> Any:
    """`app`, attached the first time that a worker asks for it."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = http_server.app
    _attach(os.getppid())
    return http_server.app
