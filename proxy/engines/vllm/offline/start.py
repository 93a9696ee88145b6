"""What an engine inherits when it is made: the settings, and the plugin that reads them."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

from ....settings import ENVIRONMENT_VARIABLE
from .. import plugin
from ..serve.plugins import plugin_allow_list, require_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ....settings import Settings

_one_at_a_time: Final = threading.Lock()


@contextlib.contextmanager
def environment(settings: Settings) -> Iterator[None]:
    """Engines that are made in here capture hidden states; this process and all that it starts later do not.

    Processes take the variables along when they start (spawned ones load the plugin by its entry point, forked ones
    inherit what it wraps), and runners in this process read them when they load their model.

    Raises UnsupportedEngine.
    """
    require_plugins()
    with _one_at_a_time:
        given = {name: os.environ.get(name) for name in (ENVIRONMENT_VARIABLE, "VLLM_PLUGINS")}
        settings.to_environ()
        if given["VLLM_PLUGINS"] is not None:
            os.environ["VLLM_PLUGINS"] = plugin_allow_list(given["VLLM_PLUGINS"])
        try:
            # vLLM calls it once a process, which may have been before.
            plugin.register()
            yield
        finally:
            for name, value in given.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
