"""What a response says, in the form that a receipt signs and the checks read.

Each route says it in one place: a chat completion in `message.content`, `reasoning` and `tool_calls`, a completion in
`text`, as tokens for tokens do where text was asked for, a response in its items, a message in its blocks. What stands
in the place of another route is said by nobody: `foreign_in` names it, and no receipt passes beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Json = Mapping[str, Any]

SAYING: Final = frozenset(
    """arguments choices content delta function_call input message output output_text partial_json reasoning
    reasoning_content summary text thinking tool_calls""".split()  # noqa: SIM905
)
"""Fields in which one of the routes says what an application reads."""

TOP: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset({"choices"}),
    "completion": frozenset({"choices"}),
    "response": frozenset({"output", "output_text", "text", "reasoning"}),
    "message": frozenset({"content"}),
    "generate": frozenset({"choices"}),
}
"""Those of a response, by route. `text` and `reasoning` of /v1/responses are options; `output_text` is put there by
OpenAI's SDK for JavaScript, and has to be the text."""

CHOICE: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset({"message"}),
    "completion": frozenset({"text"}),
    "generate": frozenset({"text"}),
}

CHAT_MESSAGE: Final = frozenset({"content", "reasoning", "reasoning_content", "tool_calls", "function_call"})

ITEMS: Final[Mapping[str, frozenset[str]]] = {
    "message": frozenset({"content"}),
    "reasoning": frozenset({"summary", "content"}),
    "function_call": frozenset({"arguments"}),
}
"""Of a response's items, by type."""

OTHER_ITEM: Final = frozenset({"arguments", "input", "output"})
"""Of items of other types: calls of tools that the server ran."""

BLOCKS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"text"}),
    "thinking": frozenset({"thinking"}),
    "tool_use": frozenset({"input"}),
}
"""Of a message's blocks, by type."""

OTHER_BLOCK: Final = frozenset({"input", "content"})

TEXT_PART: Final = frozenset({"text"})


def route_of(response: Json) -> str:
    """`chat`, `completion`, `response`, `message` or `generate`: what the response says that it is, or else how it is
    made."""
    match response.get("object"):
        case "response":
            return "response"
        case "chat.completion":
            return "chat"
        case "text_completion":
            return "completion"
    if response.get("type") == "message" and "choices" not in response:
        return "message"
    if "request_id" in response and "object" not in response:
        return "generate"
    plain = all("text" in choice and "message" not in choice for choice in _objects(response.get("choices")))
    return "completion" if plain and response.get("choices") else "chat"


def shown_in(response: Json, index: int) -> Json:
    """What a client is shown of a choice, in the form of `choices` of a chat completion; nothing of another route.

    A response of /v1/responses is shown as one, whatever turns it took, and so is a message of /v1/messages.
    """
    match route_of(response):
        case "response":
            cut = response.get("incomplete_details")
            reason = cut.get("reason") if isinstance(cut, Mapping) else response.get("status")
            return {"finish_reason": reason, "message": said_in_items(_list(response.get("output")))}
        case "message":
            said = said_in_blocks(_list(response.get("content")))
            return {"finish_reason": response.get("stop_reason"), "message": said}
        case route:
            choice = next(_numbered(response, index), {})
            shown = {name: choice[name] for name in ("index", "finish_reason") if name in choice}
            if route == "chat" and isinstance(choice.get("message"), Mapping):
                shown["message"] = {name: choice["message"].get(name) for name in CHAT_MESSAGE & {*choice["message"]}}
            if route == "generate" or (route == "completion" and "text" in choice):
                shown["message"] = {"content": choice.get("text")}
            return shown


def tokens_in(response: Json, index: int) -> object:
    """The token ids that a choice shows; None if it shows none."""
    return next(_numbered(response, index), {}).get("token_ids")


def said_in_items(items: Sequence[Any]) -> dict[str, Any]:
    """Of a response's items, as the message of a chat completion."""
    listed = _objects(items)
    texts = [part for item in listed if item.get("type") == "message" for part in _objects(item.get("content"))]
    thoughts = [
        part
        for item in listed
        if item.get("type") == "reasoning"
        for name in ("summary", "content")
        for part in _objects(item.get(name))
    ]
    calls = [
        {"id": item.get("call_id"), "name": item.get("name"), "arguments": item.get("arguments")}
        for item in listed
        if item.get("type") == "function_call"
    ]
    texts = [part for part in texts if part.get("type") == "output_text"]
    return {"content": _joined(texts, "text"), "reasoning": _joined(thoughts, "text"), "tool_calls": calls}


def said_in_blocks(blocks: Sequence[Any]) -> dict[str, Any]:
    """Of a message's content blocks, as the message of a chat completion."""
    listed = _objects(blocks)
    texts, thoughts, uses = (
        [block for block in listed if block.get("type") == kind] for kind in ("text", "thinking", "tool_use")
    )
    calls = [{"id": use.get("id"), "name": use.get("name"), "arguments": use.get("input")} for use in uses]
    return {"content": _joined(texts, "text"), "reasoning": _joined(thoughts, "thinking"), "tool_calls": calls}


def output_of(choice: Json) -> dict[str, Any] | None:
    """What a client is shown of a choice, without nulls and what SDKs add; None for what is no choice."""
    message = choice.get("message")
    if not isinstance(message, Mapping) or not message.keys() & {"content", "reasoning", "tool_calls"}:
        return None
    output: dict[str, Any] = {"text": message.get("content") or ""}
    if reasoning := message.get("reasoning") or message.get("reasoning_content"):
        output["reasoning"] = reasoning
    calls = [*_list(message.get("tool_calls")), *filter(None, [message.get("function_call")])]
    if calls:
        output["tool_calls"] = [_call(call) for call in calls]
    return output


def foreign_in(response: Json, index: int, request: Json | None = None) -> str | None:
    """The path of a field that says something in the place of another route, or where another is read; None for none.

    With a `request` that is of one route, the response has to be of that.
    """
    route = route_of(response)
    if request is not None and route not in _answered_by(request):
        return "object"
    if response.get("type") == "message" and route != "message":
        return "type"
    places = [_foreign(response, TOP[route], ""), *_below(route, response, index)]
    return next(filter(None, places), None)


def _answered_by(request: Json) -> tuple[str, ...]:
    if "input" in request:
        return ("response",)
    if "messages" in request:
        return ("chat", "message")
    if "token_ids" in request and "prompt" not in request:
        return ("generate",)
    return ("completion",) if "prompt" in request else tuple(TOP)


def _below(route: str, response: Json, index: int) -> Iterator[str | None]:
    match route:
        case "response":
            said = said_in_items(_list(response.get("output")))["content"]
            yield "output_text" if response.get("output_text") not in (None, "", said) else None
            for name in ("text", "reasoning"):
                yield None if isinstance(response.get(name), Mapping | None) else name
            for place, item in enumerate(_list(response.get("output"))):
                yield from _in_item(item, f"output[{place}]")
        case "message":
            for place, block in enumerate(_list(response.get("content"))):
                at = f"content[{place}]"
                yield _foreign(block, BLOCKS.get(_type(block), OTHER_BLOCK), at)
        case _:
            choices = [*_numbered(response, index)]
            yield "choices" if len(choices) > 1 else None
            for choice in choices[:1]:
                yield from _in_choice(route, choice, f"choices[{_list(response.get('choices')).index(choice)}]")


def _in_item(item: Any, at: str) -> Iterator[str | None]:
    kind = _type(item)
    yield _foreign(item, ITEMS.get(kind, OTHER_ITEM), at)
    names = {"message": ("content",), "reasoning": ("summary", "content")}.get(kind, ())
    for name in names:
        for place, part in enumerate(_list(item.get(name))):
            is_read = kind == "reasoning" or _type(part) == "output_text"
            yield _foreign(part, TEXT_PART if is_read else frozenset(), f"{at}.{name}[{place}]")


def _in_choice(route: str, choice: Json, at: str) -> Iterator[str | None]:
    yield _foreign(choice, CHOICE[route], at)
    message = choice.get("message")
    if route == "chat" and isinstance(message, Mapping):
        yield _foreign(message, CHAT_MESSAGE, f"{at}.message")
        thoughts = {str(message[name]) for name in ("reasoning", "reasoning_content") if message.get(name)}
        yield f"{at}.message.reasoning_content" if len(thoughts) > 1 else None
        for place, call in enumerate(_list(message.get("tool_calls"))):
            flat = isinstance(call, Mapping) and "function" in call
            yield _foreign(call, frozenset() if flat else frozenset({"arguments"}), f"{at}.message.tool_calls[{place}]")


def _foreign(value: Any, allowed: frozenset[str], at: str) -> str | None:
    """The first field that says something and may not, of an object."""
    if not isinstance(value, Mapping):
        return None
    names = sorted(name for name in SAYING - allowed if value.get(name) not in (None, "", [], {}))
    return f"{at}.{names[0]}".removeprefix(".") if names else None


def _call(call: object) -> object:
    if not isinstance(call, Mapping):
        return call
    function = call.get("function", call)
    fields = {"id": call.get("id")}
    if isinstance(function, Mapping):
        fields |= {"name": function.get("name"), "arguments": function.get("arguments")}
    return {name: value for name, value in fields.items() if value is not None}


def _joined(parts: Iterable[Json], name: str) -> str:
    return "".join(str(part.get(name)) for part in parts if part.get(name))


def _numbered(response: Json, index: int) -> Iterator[Json]:
    return (choice for choice in _objects(response.get("choices")) if choice.get("index") == index)


def _type(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else None
    return kind if isinstance(kind, str) else ""


def _objects(value: object) -> list[Json]:
    return [item for item in _list(value) if isinstance(item, Mapping)]


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
