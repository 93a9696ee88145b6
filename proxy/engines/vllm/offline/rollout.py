"""What is verified offline: tokens that follow others, and their proofs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter, ValidationError

from toploc.errors import MalformedEvidence
from toploc.evidence.evidence import Answer, Evidence
from toploc.evidence.shapes import Completion
from toploc.evidence.wording import problem_of
from toploc.protocol import TokenId, ToplocProofs
from toploc.tokens.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams

TOKEN_IDS = TypeAdapter(tuple[TokenId, ...])


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer to a prompt.

    Attributes:
        prompt_token_ids, token_ids: of the prompt, and of what followed it to its last token.
        proofs: `toploc_proofs` of this answer, as a model, an object of JSON or its text.
        sampling_params: that it was asked for with. Without, nobody can tell how its tokens were to be chosen nor
            where it was to end, and reports say so.
        lora_request: that it was asked for with.
        finish_reason: why it is said to have ended.
        choice: its number among the choices of its prompt, which is added to the seed of `sampling_params`.
    """

    prompt_token_ids: Sequence[int]
    token_ids: Sequence[int]
    proofs: ToplocProofs | Mapping[str, Any] | str | bytes
    sampling_params: SamplingParams | None = None
    lora_request: LoRARequest | None = None
    finish_reason: str | None = None
    choice: int = 0

    @classmethod
    def of(cls, output: RequestOutput, choice: int = 0, sampling_params: SamplingParams | None = None) -> Self:
        """A choice of what `LLM.generate` gave."""
        made = output.outputs[choice]
        return cls(
            output.prompt_token_ids or (),
            made.token_ids,
            made.toploc_proofs,
            sampling_params,
            output.lora_request,
            made.finish_reason,
            made.index,
        )

    def evidence(self) -> Evidence:
        """As a request and its response. Raises MalformedEvidence for proofs that are none, or ids that are none."""
        proofs = _proofs(self.proofs)
        prompt = _ids(self.prompt_token_ids, "prompt_token_ids")
        params = self.sampling_params
        seed = None if params is None or params.seed is None else params.seed + self.choice
        answers: tuple[Answer, ...] = ()
        if proofs.choices is not None and proofs.prompt is not None:
            [made] = proofs.choices
            answers = (Answer(0, None, self.finish_reason, made, made.prompt or proofs.prompt),)
        return Evidence(
            "completion",
            Completion.model_construct(prompt=list(prompt), n=1),
            Sampling(seed=seed),
            (proofs.model,),
            proofs,
            answers,
            (prompt,),
        )


def _proofs(value: object) -> ToplocProofs:
    """Of one choice with tokens, or of none."""
    field = "response.toploc_proofs"
    if not isinstance(value, ToplocProofs):
        try:
            if isinstance(value, str | bytes):
                value = ToplocProofs.model_validate_json(value, strict=True)
            else:
                value = ToplocProofs.model_validate(value)
        except ValidationError as error:
            path, problem = problem_of(error)
            raise MalformedEvidence(field + path, problem) from None
    if value.choices is not None and len(value.choices) != 1:
        raise MalformedEvidence(f"{field}.choices", f"expected those of one answer, got {len(value.choices)}")
    if value.choices is not None and not value.choices[0].token_ids:
        raise MalformedEvidence(f"{field}.choices[0].token_ids", "expected at least one token")
    return value


def _ids(value: object, name: str) -> tuple[int, ...]:
    try:
        found = TOKEN_IDS.validate_python(value)
    except ValidationError as error:
        path, problem = problem_of(error)
        raise MalformedEvidence(name + path, problem) from None
    if not found:
        raise MalformedEvidence(name, "expected at least one token id")
    return found
