"""SGLang's general plugin: called once in every process that runs a scheduler, before the scheduler is made.

In a SGLang that `toploc sglang` did not start it does nothing, so having the package installed changes nothing.
"""

from __future__ import annotations

from functools import cache

from ...settings import Settings
from .ending import or_exit


def register() -> None:
    """Installs what runs in a scheduler.

    SGLang logs what a plugin raises, and serves without it (sglang/srt/plugins/__init__.py, `load_plugins`). A
    SystemExit it lets through, and the server ends with the scheduler.

    Raises:
        SystemExit: this SGLang cannot carry proofs; its message is one line.
    """
    if Settings.from_environ() is None:
        return
    with or_exit():
        install()


@cache
def install() -> None:
    """Once a process. Raises UnsupportedEngine."""
    from ..guards import require
    from . import reliances
    from .runners import changes, lifecycle, requests, states, steps

    require(*reliances.SCHEDULER)
    states.install()
    steps.install()
    requests.install()
    changes.install()
    lifecycle.install()
