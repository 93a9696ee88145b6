"""A request, its response, and their choices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..protocol import ChoiceProofs, PromptDigest, TokenId, ToplocProofs
from .media import Carried
from .shapes import Chat, Completion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..tokens.sampling import Sampling
    from .tokenised import Tokenised

TokenIds = tuple[TokenId, ...]

Route = Literal["chat", "batch", "completion", "response", "message", "generate"]


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
    request: Chat | Completion
    sampling: Sampling
    models: tuple[str, ...]
    """The names in the request, if it has one, in the response, and in its proofs."""
    proofs: ToplocProofs
    answers: tuple[Answer, ...]
    prompts: tuple[str | TokenIds, ...] = ()
    conversations: tuple[list[dict[str, Any]], ...] = ()
    source: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default=({}, {}), repr=False)
    """Request and response as they were read: what a receipt is about."""
    body: bytes | None = field(default=None, repr=False)
    """The request's exact bytes, where the evidence has them."""
    partial: bool = False
    """Whether the response is only what was kept of it."""
    carried: Carried = field(default_factory=Carried, repr=False, compare=False)
    """Of the request."""
    renderable: bool = True
    """Whether `request` has the whole prompt; if not, only the server's own route can render it."""
    proofless: bool = False
    """Whether it is to be held to its text alone. Then `proofs` hold the tokens and nothing that a prover said."""
    tokenised: tuple[Tokenised, ...] = ()
    """How the tokens of each choice are known, of evidence without proofs."""
    candidates: tuple[Mapping[str, float], ...] | None = None
    """Options that it may have been drawn under, by whoever has it checked; of evidence without proofs alone."""

    @property
    def model(self) -> str:
        return self.proofs.model

    @property
    def chat(self) -> Chat | None:
        return self.request if isinstance(self.request, Chat) else None

    @property
    def stops(self) -> tuple[str, ...]:
        stop = self.request.stop or []
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def unproven(self) -> frozenset[int]:
        """Choices of which the server says that it has no proofs; nobody can know their tokens."""
        return frozenset(answer.index for answer in self.answers if answer.proofs.error is not None)

    @property
    def tool_outputs(self) -> tuple[str, ...]:
        """What tools gave that the server ran for a response of several turns, as far as it says so."""
        items = self.source[1].get("output") or [] if self.route == "response" else []
        calls = [item for item in items if item.get("type") == "mcp_call"]
        return tuple(item["output"] for item in calls if isinstance(item.get("output"), str))

    @property
    def says_text(self) -> bool:
        """Whether the response has the text of its tokens."""
        return self.route != "generate" or self.source[0].get("output_mode") == "text"

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
        if self.proofless and self.proofs.sampler is None:
            seed = None  # with which nothing is known to have been drawn
        return self.sampling.model_copy(update={"seed": seed, "sampler": self.proofs.sampler})

    def prompt_of(self, answer: Answer) -> str | TokenIds:
        """The prompt of a completion's choice; choices number through all prompts."""
        return self.prompts[answer.index // self.choices_per_prompt]

    def messages_of(self, answer: Answer) -> list[dict[str, Any]]:
        """The messages of a chat's choice; none for a completion's."""
        if self.conversations:
            return self.conversations[answer.index // self.choices_per_prompt]
        return [] if self.chat is None else self.chat.messages
