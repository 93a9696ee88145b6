"""The report on an answer, from its evidence and what a verifier computed: no engine and no HTTP in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..checks.finish import check_finish
from ..checks.model import check_model
from ..checks.pooled import check_pooled
from ..checks.prompt import check_prompt
from ..checks.proofs import check_form, check_proofs
from ..checks.receipt import check_receipt
from ..checks.response import Rehearsed, check_response
from ..checks.text import check_text
from ..checks.tokens import check_tokens
from ..evidence.forms import is_other
from ..foreign import quote
from ..report import Check, CheckName, Engines, Report
from ..thresholds import tokens
from ..tokens.masks import UNCONSTRAINED, Constraint
from . import plain
from .kinds import constraint_of_another, draws_alike, renders_alike
from .proofless import equal_choices, judge_without_proofs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..engine import Engine
    from ..evidence.evidence import Answer, Evidence
    from ..proofs.chunks import Points
    from ..protocol import Media
    from ..receipts.keys import PublicKey
    from ..thresholds.bounds import Thresholds
    from ..tokens.sampling import Sampling
    from ..tokens.scores import TokenScores


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier holds every answer against.

    `names`: what its weights are served under; none if it does not know. `decode`: the text of token ids, with or
    without special tokens. `context_length`: the server's, None if unknown. `secret`: chooses the decoys
    (docs/proof-format.md, section 5). `trusted_keys`: of the providers whose receipts count. `clock`:
    whether the chat template writes the time into prompts. `engine`: what computes for this verifier.
    """

    names: Collection[str]
    thresholds: Thresholds
    decode: Callable[[Sequence[int], bool], str] = field(repr=False)
    eos_token_ids: Collection[int]
    context_length: int | None = None
    secret: bytes = field(default=b"", repr=False)
    trusted_keys: Collection[PublicKey] = ()
    clock: bool = False
    engine: Engine | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What the verifier computed of one choice.

    `prompt`: the request's, as token ids, and its `media`. `points`: top-k of every chunk of the hidden states, whose
    patterns are of `dtype`. `scores`: None where it has no logits. `sampling`: the options that the engine was handed
    for it, None where they are the request's. `constraint`: what came of those that logits alone do not replay.
    """

    prompt: tuple[int, ...]
    points: Points
    dtype: str
    scores: TokenScores | None
    sampling: Sampling | None = None
    constraint: Constraint = UNCONSTRAINED
    media: tuple[Media, ...] = ()
    logprobs: NDArray[np.float64] | None = None
    """Float64[tokens]: of the answer's own tokens before any option, where a response without proofs reports some."""


def judge(
    evidence: Evidence,
    policy: Policy,
    computed: Sequence[Computed | Check],
    rehearsed: Sequence[Rehearsed] | None = None,
) -> Report:
    """All checks of all choices, and the verdict.

    1. model: it is the verifier's.
    2. prompt: the server answered the request's.
    3. proofs: these weights computed the hidden states of these tokens.
    4. pooled, where the thresholds have bounds for it: so does their error over the whole answer.
    5. tokens: they are what the model says, and choices are no more equal than it draws them.
    6. text, without a rehearsal, where there is one: it is what the tokens say.
    7. finish, without a rehearsal: the answer ended where the request lets it end.
    8. response: all of it is what a server makes of the tokens.
    9. receipt: the provider signed this answer.

    `computed` has an entry for each of `evidence.answers`, in order: where the verifier could not compute, the check
    that says why. `rehearsed` is an engine's rehearsal, of the whole or of its parts; without, what steps 6 and 7 show
    is one (`plain.py`). The rule of the verdict is `Report.of`. Evidence without proofs has a report of its own
    (`proofless.py`).
    """
    if evidence.proofless:
        return judge_without_proofs(evidence, policy, computed)
    checks = [check_model(evidence, policy.names)]  # 1
    error = evidence.proofs.error
    if error is not None:
        message = f"the server made no proofs: {quote(error.message)}"
        figures = {"code": error.code[:40]}
        checks.append(
            Check(name="proofs", status="undecided", reason="no_proofs", message=message, figures={**figures})
        )
    for answer, entry in zip(evidence.answers, computed, strict=True):
        if isinstance(entry, Check):
            checks += _uncomputed(answer, entry)
            continue
        checks += _of_choice(evidence, answer, policy, entry)
        if rehearsed is None:
            checks += _of_text(evidence, answer, policy, entry)
    checks += equal_choices(evidence, policy, computed)  # 5
    if any(check.name == "prompt" and check.status != "passed" for check in checks):
        rehearsed = [Rehearsed(problem="the prompt that was answered is another than the request's here")]
    elif rehearsed is None:
        rehearsed = plain.rehearse(evidence, computed, checks, policy.eos_token_ids)
    checks += [check_response(part, policy.thresholds.tokens or tokens.DEFAULT) for part in rehearsed]  # 8
    checks += check_receipt(evidence, policy.trusted_keys, checks)  # 9
    engines = Engines(prover=evidence.proofs.engine, verifier=policy.engine)
    return Report.of(checks, model=evidence.model[:200], engines=engines)


def not_computable(answer: Answer, name: CheckName, reason: str, message: str) -> Check:
    """The check that says why a verifier could not compute what the checks of a choice need."""
    return Check(name=name, status="undecided", choice=answer.index, reason=reason, message=message)


def beyond_the_model(
    answer: Answer, prompt: Sequence[int], *, vocab_size: int, context_length: int | None
) -> Check | None:
    """Why the model cannot be run over prompt and answer; to be asked before it sees them.

    1. All ids are in the vocabulary.
    2. The context holds prompt and answer, to the last token: a server ends an answer there, although it needs no row
       for that token (`check_stop` in vllm/v1/core/sched/utils.py). None where its length is not known.
    """
    for name, token_ids in (("prompt", prompt), ("answer", answer.token_ids)):  # 1
        place = next((i for i, token in enumerate(token_ids) if token >= vocab_size), None)
        if place is not None:
            message = f"token {place} of the {name}, {token_ids[place]}, is outside the vocabulary of {vocab_size}"
            return not_computable(answer, "proofs", "token_id", message)
    if context_length is not None and len(prompt) + len(answer.token_ids) > context_length:  # 2
        message = f"{len(prompt)} + {len(answer.token_ids)} tokens, the context has {context_length}"
        return not_computable(answer, "proofs", "context_length", message)
    return None


def _uncomputed(answer: Answer, why: Check) -> Iterator[Check]:
    """A prover must not get by with junk where a request cannot be rendered, or is one that the engine refuses."""
    yield why
    malformed = check_form(answer)
    if malformed is not None:
        yield malformed


def _of_choice(evidence: Evidence, answer: Answer, policy: Policy, computed: Computed) -> Iterator[Check]:
    def text_of(token_ids: Sequence[int]) -> str:
        return policy.decode(token_ids, False)

    prover = evidence.proofs.engine
    thresholds = policy.thresholds.for_pair(prover, policy.engine)
    other = is_other(prover, policy.engine)
    prompt = check_prompt(  # 2
        answer,
        computed.prompt,
        clock=policy.clock,
        other=other and not renders_alike(evidence),
        media=computed.media,
        carried=evidence.carried,
    )
    yield prompt
    if prompt.status == "undecided":
        # What was computed is of another prompt.
        malformed = check_form(answer)
        if malformed is not None:
            yield malformed
        return
    proofs = check_proofs(  # 3
        answer,
        evidence.proofs.dtype,
        computed.points,
        computed.dtype,
        thresholds,
        decode=text_of,
        secret=policy.secret,
    )
    yield proofs
    if proofs.reason == "weights_changed":
        # Scores are of this verifier's weights too, and error is pooled over all chunks.
        return
    if thresholds.pooled is not None:
        yield check_pooled(proofs, thresholds.pooled, thresholds.name, prover)  # 4
    bounds = thresholds.tokens or tokens.DEFAULT
    sampling = computed.sampling or evidence.sampling_of(answer)
    constraint = computed.constraint
    if other:
        constraint = constraint_of_another(constraint, sampling, alike=draws_alike(evidence))
    yield check_tokens(answer, sampling, computed.scores, bounds, decode=text_of, constraint=constraint)  # 5


def _of_text(evidence: Evidence, answer: Answer, policy: Policy, computed: Computed) -> Iterator[Check]:
    decode, ends = policy.decode, policy.eos_token_ids
    if evidence.says_text:
        yield check_text(evidence, answer, computed.prompt, decode=decode, eos_token_ids=ends)  # 6
    yield check_finish(  # 7
        evidence,
        answer,
        decode=decode,
        eos_token_ids=ends,
        prompt_tokens=len(computed.prompt),
        context_length=policy.context_length,
    )
