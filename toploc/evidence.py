"""A stored request and response, parsed at the edge: whatever is in it, it is an `Evidence` or MalformedEvidence."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .as_chat import MAX_TURNS, MessageObject, MessageRequest, ResponseObject, ResponseRequest
from .errors import MalformedEvidence
from .protocol import FIELD_NAME, ChoiceProofs, PromptDigest, TokenId, ToplocProofs
from .tokens.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_BYTES: Final = 16 * 2**20
"""Of one request and response. Stops bodies that fill the memory; 100,000 tokens and their proofs are 2 MB."""
MAX_DEPTH: Final = 64
"""Of nested JSON. Stops bodies that exhaust the stack of whatever walks them later, the chat template for one."""
MAX_CHOICES: Final = 1024
"""Each is a prefill. Stops one small body from asking for thousands."""
MAX_TOKENS: Final = 2**20
"""Of all prompts and answers together, since each choice is prefilled with its prompt."""
MAX_SHOWN: Final = 100
"""Characters of a message about foreign input, which may itself be megabytes."""

TokenIds = tuple[TokenId, ...]
_Place = tuple["_Place", str | int] | None
"""Where a value stands: in what, and under which name or number there."""
Route = Literal["chat", "batch", "completion", "response", "message"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    function_call: dict[str, Any] | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True)

    index: int = Field(ge=0, lt=MAX_CHOICES)
    finish_reason: str | None = Field(default=None, max_length=MAX_SHOWN)
    message: _Message | None = None
    text: str | None = None


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)

    object: Literal["chat.completion", "text_completion"]
    model: str
    choices: tuple[_Choice, ...] = Field(max_length=MAX_CHOICES)


class _Request(BaseModel):
    """What both routes have. Unknown options are kept for `Sampling`, which says what cannot be replayed."""

    model_config = ConfigDict(frozen=True, strict=True)

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    include_reasoning: bool | None = None
    echo: bool | None = None


class _Chat(_Request):
    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    reasoning_effort: str | None = None


class _Completion(_Request):
    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] = Field(min_length=1)
    suffix: None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: None = None


C = TypeVar("C", ChoiceProofs, _Choice)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: what the client saw of it, and what the server says that it was made of."""

    index: int
    text: str | None
    finish_reason: str | None
    proofs: ChoiceProofs
    prompt: PromptDigest
    restructured: str | None = None
    """What parts of the text were taken out into fields of their own: `reasoning` or `tool_calls`."""

    @property
    def token_ids(self) -> TokenIds:
        return self.proofs.token_ids


@dataclass(frozen=True, slots=True)
class Evidence:
    """A request, its response, and their choices in order.

    `prompts` are texts or token ids; none for a chat. `conversations` are those of a batch of chats, a choice each, of
    which `request` has the first; none for another request.
    """

    route: Route
    request: _Chat | _Completion
    sampling: Sampling
    models: tuple[str, ...]
    """The names in the request, if it has one, in the response, and in its proofs."""
    proofs: ToplocProofs
    answers: tuple[Answer, ...]
    prompts: tuple[str | TokenIds, ...] = ()
    conversations: tuple[list[dict[str, Any]], ...] = ()
    source: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default=({}, {}), repr=False)
    """Request and response as they were read: what a receipt is about."""
    renderable: bool = True
    """Whether `request` has the prompt's messages; if not, only the server's own route can render them."""
    bodies: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """What leads to the prompts: the request, or of a response with several turns a request for each, up to one whose
    prompt is not known."""

    @property
    def model(self) -> str:
        return self.proofs.model

    @property
    def chat(self) -> _Chat | None:
        return self.request if isinstance(self.request, _Chat) else None

    @property
    def stops(self) -> tuple[str, ...]:
        stop = self.request.stop or []
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def choices_per_prompt(self) -> int:
        return self.request.n or 1

    def under_one_name(self, names: Sequence[str]) -> Evidence:
        """With the first of `names`, which are all one model's, in place of the others: a server may be asked for any
        of its own, and vLLM answers under the first."""
        return replace(self, models=tuple(names[0] if name in names else name for name in self.models))

    def sampling_of(self, answer: Answer) -> Sampling:
        """The options of one choice. vLLM gives the choices of a seeded prompt consecutive seeds
        (vllm/v1/engine/parallel_sampling.py); where the request has none, it is the server's word that counts."""
        asked = self.sampling.seed
        seed = answer.proofs.seed if asked is None else asked + answer.index % self.choices_per_prompt
        return self.sampling.model_copy(update={"seed": seed, "sampler": self.proofs.sampler})

    def prompt_of(self, answer: Answer) -> str | TokenIds:
        """The prompt of a completion's choice; choices number through all prompts."""
        return self.prompts[answer.index // self.choices_per_prompt]

    def messages_of(self, answer: Answer) -> list[dict[str, Any]]:
        """The messages of a chat's choice; none for a completion's."""
        if self.conversations:
            return self.conversations[answer.index // self.choices_per_prompt]
        return [] if self.chat is None else self.chat.messages


def parse_evidence(data: bytes | str, defaults: Mapping[str, Any] | None = None) -> Evidence:
    """The evidence in a JSON object. See `read_evidence`. Raises MalformedEvidence."""
    if len(data) > MAX_BYTES:
        raise MalformedEvidence("", f"more than {MAX_BYTES:,} bytes")
    return read_evidence(load_json(data), defaults)


def load_json(data: bytes | str) -> object:
    """What a JSON text says, where it says one thing. Raises MalformedEvidence."""
    try:
        return json.loads(data, parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise MalformedEvidence("", f"nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:  # of JSON, of UTF-8, of integers with thousands of digits
        raise MalformedEvidence("", f"not JSON: {_short(error)}") from None


def read_evidence(value: object, defaults: Mapping[str, Any] | None = None) -> Evidence:
    """The evidence in what a JSON parser gave: `{"request": …, "response": …}`.

    1. It is not nested deeper than `MAX_DEPTH`, and its numbers and texts are ones that JSON can carry on.
    2. Request and response are of one route: chat completions or a batch of them, completions, responses or messages.
    3. Every field that a check reads is there and of its type; no choice, token or text is beyond a limit.
    4. The response and its proofs have the same choices, numbered from 0, as many as the request asked for.

    `defaults` are the sampling options of the model's generation_config.json. Raises MalformedEvidence.
    """
    _walk(value)  # 1
    if not isinstance(value, dict):
        _fail("", f"expected an object, got {_short(value)}")
    for name in ("request", "response"):
        if not isinstance(value.get(name), dict):
            _fail(name, "expected an object" if name in value else "missing")
    if unknown := value.keys() - {"request", "response"}:
        _fail(_short(min(unknown)), "unknown; evidence has `request` and `response`")
    body, sent = value["request"], value["response"]
    route = _route(body, sent)  # 2
    if FIELD_NAME not in sent:
        _fail(f"response.{FIELD_NAME}", "missing: the answer carries no proofs")
    proofs = _parse_proofs(sent[FIELD_NAME])
    source, renderable, turns = (body, sent), True, 1
    bodies: tuple[dict[str, Any], ...] = (body,)
    if route in ("response", "message"):
        form: ResponseRequest | MessageRequest
        if route == "response":
            form = _parse(ResponseRequest, body, "request")  # 3
            made = _parse(ResponseObject, sent, "response").chat(len(proofs.choices or ()))
            turns = len(made["choices"])
            if turns > MAX_TURNS:
                _fail("response.output", f"more than {MAX_TURNS} turns")
            bodies = tuple(form.turns(body, sent["output"]))
        else:
            form = _parse(MessageRequest, body, "request")
            made = _parse(MessageObject, sent, "response").chat()
        renderable = form.renderable and turns == 1
        body, sent = form.chat(body), {**made, FIELD_NAME: sent[FIELD_NAME]}
    conversations: tuple[list[dict[str, Any]], ...] = ()
    if route == "batch":
        conversations = _conversations(body["messages"])
        body = {**body, "messages": conversations[0]}
    kind: type[_Chat | _Completion] = _Completion if route == "completion" else _Chat
    expected = "text_completion" if route == "completion" else "chat.completion"
    request = _parse(kind, body, "request")  # 3
    sampling = _parse_sampling(body, defaults)
    response = _parse(_Response, sent, "response")
    if response.object != expected:
        _fail("response.object", f"expected {expected!r} for this request, got {response.object!r}")
    prompts = _prompts(request) if isinstance(request, _Completion) else ()
    answers = _answers(response, proofs, chat=isinstance(request, _Chat))  # 4
    asked = (len(prompts) or len(conversations) or 1) * (request.n or 1) * turns
    if proofs.error is None and len(answers) != asked:
        _fail("response.choices", f"expected {asked}, as the request asks for, got {len(answers)}")
    tokens = sum(len(a.token_ids) + a.prompt.num_tokens for a in answers)
    if tokens > MAX_TOKENS:
        _fail(f"response.{FIELD_NAME}.choices", f"more than {MAX_TOKENS:,} tokens with their prompts")
    names = [name for name in (request.model, response.model, proofs.model) if name is not None]
    return Evidence(
        route,
        request,
        sampling,
        tuple(names),
        proofs,
        answers,
        prompts,
        conversations,
        source,
        renderable,
        bodies,
    )


def _route(body: Mapping[str, Any], sent: Mapping[str, Any]) -> Route:
    """By what the request asks with; of two that ask with messages, by the response."""
    asks = {name for name in ("messages", "prompt", "input") if name in body}
    if asks == {"messages"}:
        if isinstance(body["messages"], list) and any(isinstance(item, list) for item in body["messages"]):
            return "batch"
        return "message" if sent.get("type") == "message" else "chat"
    if asks == {"prompt"}:
        return "completion"
    if asks not in ({"input"}, {"input", "prompt"}):
        _fail("request", "expected one of `messages`, `prompt` and `input`")
    if sent.get("object") != "response":
        _fail("response.object", f"expected 'response' for this request, got {_short(sent.get('object'))}")
    return "response"


def _conversations(messages: list[Any]) -> tuple[list[dict[str, Any]], ...]:
    """Of a batch of chats, each of at least one message."""
    if len(messages) > MAX_CHOICES:
        _fail("request.messages", f"more than {MAX_CHOICES}")
    for place, conversation in enumerate(messages):
        field = f"request.messages[{place}]"
        if not isinstance(conversation, list) or not conversation:
            _fail(field, f"expected a list of messages as the others are, got {_short(conversation)}")
        if not all(isinstance(message, dict) for message in conversation):
            _fail(field, "expected objects")
    return tuple(messages)


def _answers(response: _Response, proofs: ToplocProofs, *, chat: bool) -> tuple[Answer, ...]:
    if proofs.choices is None or proofs.prompt is None:
        return ()
    field = f"response.{FIELD_NAME}.choices"
    if len(proofs.choices) > MAX_CHOICES:
        _fail(field, f"more than {MAX_CHOICES}")
    proven = _by_index(proofs.choices, field)
    seen = _by_index(response.choices, "response.choices")
    if proven.keys() != seen.keys():
        _fail(field, f"{len(proven)} choices with proofs, {len(seen)} in the response")
    answers = []
    for index in range(len(seen)):
        choice, made = seen[index], proven[index]
        if not made.token_ids:
            _fail(f"{field}[{index}].token_ids", "expected at least one token")
        if chat and choice.message is None:
            _fail(f"response.choices[{index}].message", "missing")
        if not chat and choice.text is None:
            _fail(f"response.choices[{index}].text", "missing")
        message = choice.message or _Message(content=choice.text)
        answers.append(
            Answer(
                index, message.content, choice.finish_reason, made, made.prompt or proofs.prompt, _restructured(message)
            )
        )
    return tuple(answers)


def _restructured(message: _Message) -> str | None:
    if message.tool_calls or message.function_call:
        return "tool_calls"
    return "reasoning" if message.reasoning or message.reasoning_content else None


def _by_index(choices: Sequence[C], field: str) -> dict[int, C]:
    found = {choice.index: choice for choice in choices}
    if sorted(found) != list(range(len(choices))):
        _fail(field, f"expected each index from 0 to {len(choices) - 1} once")
    return found


def _prompts(request: _Completion) -> tuple[str | TokenIds, ...]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return (prompt,)
    # Pydantic has seen to it that all items are of one type.
    ids = tuple(item for item in prompt if isinstance(item, int))
    if ids:
        return (ids,)
    prompts = tuple(item if isinstance(item, str) else tuple(item) for item in prompt if not isinstance(item, int))
    if len(prompts) > MAX_CHOICES:
        _fail("request.prompt", f"more than {MAX_CHOICES}")
    if not all(prompts):
        _fail("request.prompt", "an empty prompt")
    return prompts


def _parse(model: type[M], value: dict[str, Any], root: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _invalid(error, root)


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
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    _fail(_short(root + path), _short(first["msg"]))


def _walk(value: object) -> None:
    """Refuses what JSON cannot carry on: infinities, NaN, lone surrogates; and what is nested too deep."""
    if problem := _problem(value):
        _fail("", problem)
    level: list[tuple[_Place, object]] = [(None, value)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[_Place, object]] = []
        for place, item in level:
            entries: Iterable[tuple[str | int, object]] = ()
            if isinstance(item, dict):
                entries = item.items()
                if problem := next(filter(None, map(_problem, item)), None):
                    _fail(_path(place), problem)
            elif isinstance(item, list):
                entries = enumerate(item)
            for name, entry in entries:
                if isinstance(entry, dict | list):
                    below.append(((place, name), entry))
                elif isinstance(entry, float | str) and (problem := _problem(entry)):
                    _fail(_path((place, name)), problem)
        level = below
        if not level:
            return
    _fail(_path(level[0][0]), f"nested more than {MAX_DEPTH} deep")


def _problem(leaf: object) -> str | None:
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return "a number that is not finite"
    if isinstance(leaf, str) and not leaf.isascii() and any("\ud800" <= c <= "\udfff" for c in leaf):
        return "text with half of a surrogate pair"
    return None


def _path(place: _Place) -> str:
    """Made only where something is wrong: names may be megabytes long, and places are many."""
    parts: list[str] = []
    while place is not None:
        place, name = place
        parts.append(f"[{name}]" if isinstance(name, int) else f".{name[:MAX_SHOWN]}")
    return _short("".join(reversed(parts)).removeprefix("."))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys, one reader takes the first and another the last: so none may take either."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _fail(field: str, message: str) -> NoReturn:
    raise MalformedEvidence(field, message)
