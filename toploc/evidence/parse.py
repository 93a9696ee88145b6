"""A stored request and response, parsed at the edge: whatever is in it, it is an `Evidence` or MalformedEvidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import MalformedEvidence
from ..protocol import FIELD_NAME, ChoiceProofs, PromptDigest, ToplocProofs
from ..receipts.request import says
from ..tokens.sampling import Sampling
from .as_chat import MAX_TURNS, MessageObject, MessageRequest, ResponseObject, ResponseRequest
from .as_completion import GenerateObject, GenerateRequest
from .candidates import candidates_in
from .evidence import Answer, Evidence, Route, TokenIds
from .media import Carried
from .shapes import MAX_CHOICES, Chat, Choice, Completion, Message, Response
from .strict_json import MAX_BYTES, fail, load_json, short, walk
from .tokenised import Asked, Said, tokenised
from .wording import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .tokenised import Tokenised, Tokenizer

MAX_TOKENS: Final = 2**20
"""Of all prompts and answers together, since each choice is prefilled with its prompt."""

PARTS: Final = frozenset(("request", "response", "request_body", "partial", "proofs", "sampling"))
"""Of evidence."""

C = TypeVar("C", ChoiceProofs, Choice)

M = TypeVar("M", bound=BaseModel)


def parse_evidence(
    data: bytes | str, defaults: Mapping[str, Any] | None = None, tokenizer: Tokenizer | None = None
) -> Evidence:
    """The evidence in a JSON object. See `read_evidence`. Raises MalformedEvidence."""
    if len(data) > MAX_BYTES:
        raise MalformedEvidence("", f"more than {MAX_BYTES:,} bytes")
    return read_evidence(load_json(data), defaults, tokenizer)


def read_evidence(
    value: object, defaults: Mapping[str, Any] | None = None, tokenizer: Tokenizer | None = None
) -> Evidence:
    """The evidence in what a JSON parser gave: `{"request": …, "response": …}`, and `request_body`, if it was kept.

    With `"partial": true` the response is what was kept of it: what it leaves out is not held against it. With
    `"proofs": "none"` it is to be held to its text alone: `toploc_proofs`, if it is there, is as if it were not. Its
    tokens are then what the response says of them (`tokenised`).

    1. It is not nested deeper than `MAX_DEPTH`, and its numbers and texts are ones that JSON can carry on.
    2. Request and response are of one route: chat completions or a batch of them, completions, responses, messages, or
       tokens for tokens.
    3. Every field that a check reads is there and of its type; no choice, token or text is beyond a limit.
    4. The response and its proofs have the same choices, numbered from 0, as many as the request asked for.

    `defaults` are the sampling options of the model's generation_config.json; `tokenizer` is the model's, without which
    evidence without proofs cannot be read. Raises MalformedEvidence.
    """
    walk(value)  # 1
    body, sent, exact = _parts(value)
    proofless = isinstance(value, dict) and "proofs" in value
    route = _route(body, sent)  # 2
    proofs = None if proofless else _proofs_in(sent)
    form = _form(route, body, sent, proofs)  # 3
    kind: type[Chat | Completion] = Completion if route in ("completion", "generate") else Chat
    request = _parse(kind, form.body, "request")
    # The engine's own options, which no defaults of the model's stand in for.
    sampling = _parse_sampling(form.body, None if route == "generate" else defaults)
    response = _parse(Response, form.sent, "response")
    expected = "text_completion" if kind is Completion else "chat.completion"
    if response.object != expected:
        fail("response.object", f"expected {expected!r} for this request, got {response.object!r}")
    prompts = _prompts(request) if isinstance(request, Completion) else ()
    derived: tuple[Tokenised, ...] = ()
    if proofs is None:
        proofs, derived = _without_proofs(request, response, form, tokenizer)
    answers = _answers(response, proofs, chat=isinstance(request, Chat), proofless=proofless)  # 4
    asked = (len(prompts) or len(form.conversations) or 1) * (request.n or 1) * form.turns
    if proofs.error is None and len(answers) != asked:
        fail("response.choices", f"expected {asked}, as the request asks for, got {len(answers)}")
    if sum(len(a.token_ids) + a.prompt.num_tokens for a in answers) > MAX_TOKENS:
        fail(f"response.{FIELD_NAME}.choices", f"more than {MAX_TOKENS:,} tokens with their prompts")
    return Evidence(
        route,
        request,
        sampling,
        tuple(name for name in (request.model or None, response.model, proofs.model) if name),
        proofs,
        answers,
        prompts,
        form.conversations,
        source=(body, sent),
        body=exact,
        carried=Carried(body),
        renderable=form.renderable,
        partial=isinstance(value, dict) and value.get("partial") is True,
        proofless=proofless,
        tokenised=derived,
        candidates=candidates_in(value.get("sampling")) if isinstance(value, dict) else None,
    )


def _parts(value: object) -> tuple[dict[str, Any], dict[str, Any], bytes | None]:
    """Request, response and, where it is there, the exact body of the request."""
    if not isinstance(value, dict):
        fail("", f"expected an object, got {short(value)}")
    for name in ("request", "response"):
        if not isinstance(value.get(name), dict):
            fail(name, "expected an object" if name in value else "missing")
    if unknown := value.keys() - PARTS:
        message = "unknown; evidence has `request`, `response` and, optionally, `request_body`, `partial`, `proofs`"
        fail(short(min(unknown)), message)
    if value.get("proofs", "none") != "none":
        fail("proofs", 'expected "none", or nothing: whether the response is to be held to its text alone')
    if "sampling" in value and "proofs" not in value:
        fail("sampling", 'goes with `"proofs": "none"`; of other answers the request says it')
    if not isinstance(value.get("partial", False), bool):
        fail("partial", "expected true or false: whether the response is only what was kept of it")
    if "request_body" not in value:
        return value["request"], value["response"], None
    if not isinstance(value["request_body"], str):
        fail("request_body", "expected a text: the body exactly as it was sent")
    exact = value["request_body"].encode()
    if not says(exact, value["request"]):
        fail("request_body", "not the JSON of `request`; it is the body exactly as it was sent")
    return value["request"], value["response"], exact


@dataclass(frozen=True, slots=True)
class _Form:
    """Request and response of any route as those of a chat or of a completion, and what that form does not say.

    `turns`: choices that one prompt led to, one after another. The others are as in `Evidence`.
    """

    body: dict[str, Any]
    sent: dict[str, Any]
    source: Mapping[str, Any]
    """The response as it came."""
    turns: int = 1
    renderable: bool = True
    conversations: tuple[list[dict[str, Any]], ...] = ()


def _form(route: Route, body: dict[str, Any], sent: dict[str, Any], proofs: ToplocProofs | None) -> _Form:
    field = sent.get(FIELD_NAME)
    match route:
        case "batch":
            conversations = _conversations(body["messages"])
            return _Form({**body, "messages": conversations[0]}, sent, sent, conversations=conversations)
        case "response":
            asked = _parse(ResponseRequest, body, "request")
            chat = _parse(ResponseObject, sent, "response").chat(len(proofs.choices or ()) if proofs else 1)
            turns = len(chat["choices"])
            if turns > MAX_TURNS:
                fail("response.output", f"more than {MAX_TURNS} turns")
            said = {**chat, FIELD_NAME: field}
            return _Form(asked.chat(body), said, sent, turns, renderable=asked.renderable and turns == 1)
        case "message":
            message = _parse(MessageRequest, body, "request")
            said = {**_parse(MessageObject, sent, "response").chat(), FIELD_NAME: field}
            return _Form(message.chat(body), said, sent, renderable=message.renderable)
        case "generate":
            given = _parse(GenerateRequest, body, "request")
            model = proofs.model if proofs else given.model or ""
            said = {**_parse(GenerateObject, sent, "response").completion(model), FIELD_NAME: field}
            return _Form(given.completion(), said, sent, renderable=given.renderable)
        case "chat" | "completion":
            return _Form(body, sent, sent)


def _route(body: Mapping[str, Any], sent: Mapping[str, Any]) -> Route:
    """By what the request asks with; of two that ask with messages, by the response."""
    asks = {name for name in ("messages", "prompt", "input", "token_ids") if name in body}
    if asks == {"messages"}:
        if isinstance(body["messages"], list) and any(isinstance(item, list) for item in body["messages"]):
            return "batch"
        # One that is called by both names is no message: no server says `choices` or `object` of one.
        return "message" if sent.get("type") == "message" and not {"choices", "object"} & sent.keys() else "chat"
    if asks == {"prompt"}:
        return "completion"
    if asks == {"token_ids"}:
        return "generate"
    if asks not in ({"input"}, {"input", "prompt"}):
        fail("request", "expected one of `messages`, `prompt`, `input` and `token_ids`")
    if sent.get("object") != "response":
        fail("response.object", f"expected 'response' for this request, got {short(sent.get('object'))}")
    return "response"


def _conversations(messages: list[Any]) -> tuple[list[dict[str, Any]], ...]:
    """Of a batch of chats, each of at least one message."""
    if len(messages) > MAX_CHOICES:
        fail("request.messages", f"more than {MAX_CHOICES}")
    for place, conversation in enumerate(messages):
        field = f"request.messages[{place}]"
        if not isinstance(conversation, list) or not conversation:
            fail(field, f"expected a list of messages as the others are, got {short(conversation)}")
        if not all(isinstance(message, dict) for message in conversation):
            fail(field, "expected objects")
    return tuple(messages)


def _without_proofs(
    request: Chat | Completion, response: Response, form: _Form, tokenizer: Tokenizer | None
) -> tuple[ToplocProofs, tuple[Tokenised, ...]]:
    """The tokens of each choice, and these in the form of a field, of which nobody has said anything else."""
    if tokenizer is None:
        fail("proofs", "this reader has no tokenizer, and so does not know the tokens of a text")
    sent = form.source.get("choices")
    listed = {c.get("index"): c for c in sent if isinstance(c, dict)} if isinstance(sent, list) else {}
    choices = _by_index(response.choices, "response.choices")
    said = [
        Said(message.content, choice.finish_reason, _restructured(message), listed.get(index, {}))
        for index, choice in sorted(choices.items())
        for message in (_said_by(choice, chat=isinstance(request, Chat)),)
    ]
    stops = bool(request.stop or form.body.get("stop_token_ids"))
    asked = Asked(stops, continues=isinstance(request, Completion))
    derived = tokenised(said, form.source.get("usage"), tokenizer, asked)
    made = tuple(ChoiceProofs(index=i, token_ids=one.token_ids, proofs=()) for i, one in enumerate(derived))
    model = response.model or request.model or ""
    return ToplocProofs(dtype="bfloat16", model=model, prompt=PromptDigest.of(()), choices=made), derived


def _said_by(choice: Choice, *, chat: bool) -> Message:
    """By the route alone: else a completion's honest `message` could stand beside another `text`."""
    return choice.message if chat and choice.message is not None else Message(content=choice.text)


def _answers(response: Response, proofs: ToplocProofs, *, chat: bool, proofless: bool = False) -> tuple[Answer, ...]:
    if proofs.choices is None or proofs.prompt is None:
        return ()
    field = f"response.{FIELD_NAME}.choices"
    if len(proofs.choices) > MAX_CHOICES:
        fail(field, f"more than {MAX_CHOICES}")
    proven = _by_index(proofs.choices, field)
    seen = _by_index(response.choices, "response.choices")
    if proven.keys() != seen.keys():
        fail(field, f"{len(proven)} choices with proofs, {len(seen)} in the response")
    answers = []
    for index in range(len(seen)):
        choice, proof = seen[index], proven[index]
        if not proof.token_ids and not proofless:
            fail(f"{field}[{index}].token_ids", "expected at least one token")
        if chat and choice.message is None:
            fail(f"response.choices[{index}].message", "missing")
        if not chat and choice.text is None:
            fail(f"response.choices[{index}].text", "missing")
        message = _said_by(choice, chat=chat)
        prompt = proof.prompt or proofs.prompt
        answers.append(Answer(index, message.content, choice.finish_reason, proof, prompt, _restructured(message)))
    return tuple(answers)


def _restructured(message: Message) -> str | None:
    if message.tool_calls or message.function_call:
        return "tool_calls"
    return "reasoning" if message.reasoning or message.reasoning_content else None


def _by_index(choices: Sequence[C], field: str) -> dict[int, C]:
    by_index = {choice.index: choice for choice in choices}
    if sorted(by_index) != list(range(len(choices))):
        fail(field, f"expected each index from 0 to {len(choices) - 1} once")
    return by_index


def _prompts(request: Completion) -> tuple[str | TokenIds, ...]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return (prompt,)
    # Pydantic has seen to it that all items are of one type.
    ids = tuple(item for item in prompt if isinstance(item, int))
    if ids:
        return (ids,)
    prompts = tuple(item if isinstance(item, str) else tuple(item) for item in prompt if not isinstance(item, int))
    if len(prompts) > MAX_CHOICES:
        fail("request.prompt", f"more than {MAX_CHOICES}")
    if not all(prompts):
        fail("request.prompt", "an empty prompt")
    return prompts


def _parse(model: type[M], value: dict[str, Any], root: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _invalid(error, root)


def _proofs_in(sent: Mapping[str, Any]) -> ToplocProofs:
    if FIELD_NAME not in sent:
        fail(f"response.{FIELD_NAME}", "missing: the answer carries no proofs")
    return _parse_proofs(sent[FIELD_NAME])


def _parse_proofs(value: object) -> ToplocProofs:
    """Strictly: the text "5" is no token id. Pydantic takes lists for tuples in strict mode only from JSON."""
    try:
        return ToplocProofs.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        _invalid(error, f"response.{FIELD_NAME}")


def _parse_sampling(body: dict[str, Any], defaults: Mapping[str, Any] | None) -> Sampling:
    try:
        return Sampling.of(body, defaults)
    except ValidationError as error:
        _invalid(error, "request")


def _invalid(error: ValidationError, root: str) -> NoReturn:
    path, problem = problem_of(error)
    fail(short(root + path), problem)
