"""Whether a model's name leads to weights: said at once, before anything is loaded or started."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import ToplocError

HUB_SECONDS: Final = 10.0
"""For the hub to say whether it has a model. Stops a network that swallows packets from hiding a typing error."""


def require_model(name: str, option: str = "--model") -> None:
    """Raises ToplocError, naming `option`, where `name` is neither a model's folder nor a model of the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ToplocError(f"{option}: {name} has no config.json; name the folder that a model was saved to")
        return
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ToplocError(f"{option}: {name}: no such folder")
    problem = _problem_at_hub(name)
    if problem is not None:
        raise ToplocError(f"{option}: {name} is no folder here, and {problem}")


def _problem_at_hub(name: str) -> str | None:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return None
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HFValidationError:
        return "no name of a model on the hub"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        return "the hub has no such model for you" if status in (401, 403, 404) else f"the hub answers HTTP {status}"
    except Exception as error:
        # Of whichever HTTP library the hub's client uses.
        return f"the hub cannot be reached to look for it ({type(error).__name__})"
    return None
