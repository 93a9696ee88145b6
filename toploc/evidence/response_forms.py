"""Responses of `/v1/responses` in the form of either kind of engine, where both say the same.

vLLM repeats penalties, `background` and the temperature that it used. SGLang repeats `store`, the format of plain text
and temperatures that the request names, and says of each message which phase it is of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..tokens.sampling import Sampling

REPEATED: Final[Mapping[str, Any]] = {
    "store": True,
    "background": False,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Fields that one kind repeats of the request, and the other does not, with what they are where it has none."""

PLAIN_TEXT: Final = {"format": {"type": "text"}}
NO_REASONING: Final = {"effort": None, "summary": None}
CHOICES: Final = ("auto", "none")
FINAL: Final = "final_answer"


def in_its_form(
    claimed: Mapping[str, Any], rehearsed: Mapping[str, Any], request: Mapping[str, Any], sampling: Sampling | None
) -> dict[str, Any]:
    """The rehearsed response, with the fields in which another kind of engine says the same.

    1. What the request says, or leaves open, and one of them repeats.
    2. Temperature and top-p that the request leaves open: what the verifier's engine uses, or nothing.
    3. `text`, `reasoning` and `metadata` that the request has none of are null in vLLM.
    4. Of no tools SGLang may call any, and vLLM none.
    5. A message beside no calls is the final answer, of which vLLM does not speak.
    6. vLLM counts tokens that tools gave, which are none where no tool ran.

    What is right follows from the rehearsal and the request alone, whichever of the two the claimed one says. All of it
    repeats the request or says that there is nothing, so that it may be left out by the prover's word for its engine
    alone.

    Args:
        sampling: options that the verifier's engine is handed; None if unknown.
    """
    made = dict(rehearsed)
    for name, default in REPEATED.items():  # 1
        if claimed.get(name) is None:
            made.pop(name, None)
        elif made.get(name) is None:
            made[name] = default if request.get(name) is None else request[name]
    for name in ("temperature", "top_p"):  # 2
        if request.get(name) is None and claimed.get(name) is None:
            made.pop(name, None)
        elif request.get(name) is None and made.get(name) is None and sampling is not None:
            made[name] = getattr(sampling, name)
    for name, nothing in (("text", PLAIN_TEXT), ("reasoning", NO_REASONING), ("metadata", {})):  # 3
        if request.get(name) is None and _is_either(claimed.get(name), nothing) and _is_either(made.get(name), nothing):
            made[name] = claimed.get(name)
    asks_for_tools = any(request.get(name) for name in ("tools", "tool_choice"))
    if not asks_for_tools and claimed.get("tool_choice") in CHOICES and made.get("tool_choice") in CHOICES:  # 4
        made["tool_choice"] = claimed["tool_choice"]
    made["output"] = _with_phases(claimed.get("output"), rehearsed.get("output"))  # 5
    made["usage"] = _with_tools(claimed.get("usage"), rehearsed.get("usage"))  # 6
    return made


def _is_either(value: object, nothing: Mapping[str, Any]) -> bool:
    return value is None or value == nothing


def _with_phases(claimed: Any, rehearsed: Any) -> Any:
    """Of items, where there are as many messages and nothing else."""
    if not isinstance(claimed, list) or not isinstance(rehearsed, list) or len(claimed) != len(rehearsed):
        return rehearsed
    pairs = list(zip(claimed, rehearsed, strict=True))
    if not all(isinstance(one, dict) and one.get("type") == "message" for pair in pairs for one in pair):
        return rehearsed
    return [
        {**right, "phase": left.get("phase")}
        if left.get("phase") in (None, FINAL) and right.get("phase") in (None, FINAL)
        else right
        for left, right in pairs
    ]


def _with_tools(claimed: Any, rehearsed: Any) -> Any:
    name = "tool_output_tokens"
    left, right = (
        usage.get("output_tokens_details") if isinstance(usage, dict) else None for usage in (claimed, rehearsed)
    )
    if not isinstance(left, dict) or not isinstance(right, dict) or right.get(name, 0) != 0:
        return rehearsed
    details = {key: value for key, value in right.items() if key != name}
    return {**rehearsed, "output_tokens_details": details if left.get(name) is None else {**details, name: 0}}
