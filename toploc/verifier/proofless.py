"""The report on an answer that proves nothing: what its text, and what it says of its tokens, tell by themselves.

Its verdict is never `accepted`: nothing shows what computed the answer. It is rejected where something contradicts, and
undecided otherwise. `Report.weak` says which of the undecided were looked at and show nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..checks.finish import check_finish
from ..checks.reported import check_reported
from ..checks.text import check_text
from ..checks.tokens import check_equal_choices, check_tokens
from ..evidence.tokenised import PROMPT_COUNTS, counted
from ..foreign import quote
from ..report import UNPROVEN, Check, Engines, Report
from ..thresholds import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from ..evidence.evidence import Answer, Evidence
    from ..evidence.tokenised import Tokenised
    from ..report import CheckName
    from ..tokens.sampling import Sampling
    from ..tokens.scores import TokenScores
    from .judge import Computed, Policy

SOURCES: Final = {
    "ids": "the ids of the tokens are the response's own word",
    "logprobs": "the tokens are those that the response lists",
    "text": "the tokens are what the model's tokenizer makes of the text, as many as `usage` says",
}


def judge_without_proofs(evidence: Evidence, policy: Policy, computed: Sequence[Computed | Check]) -> Report:
    """All that can be told of an answer without proofs.

    1. model: skipped. Whoever asks says which model it is held against; providers have names of their own for it.
    2. proofs: skipped.
    3. tokens: undecided where it is not known which they are, or nothing could be computed.
    4. prompt: undecided where the template writes the time, or `usage` counts another number of tokens than the
       request's prompt has here, since all else would be of another prompt. Otherwise weak, or skipped without a count.
    5. text, where the response says its tokens: they say the text.
    6. finish: the answer ended where the request lets it end.
    7. tokens: they are what the model says; weak at best.
    8. response: the log-probabilities that it reports are the model's; weak at best, skipped without.

    `computed` is as for `judge`.
    """
    name = quote(evidence.model) if evidence.model else "by no name"
    message = f"it is held against this verifier's model, whatever the provider means by {name}"
    checks = [_unproven("model", None, message)]  # 1
    asked = _prompt_tokens(evidence, computed)
    for answer, entry, told in zip(evidence.answers, computed, evidence.tokenised, strict=True):
        nothing = "the provider gives none, so nothing shows what computed the answer"
        checks.append(_unproven("proofs", answer, nothing))  # 2
        if told.problem is not None:  # 3
            checks.append(_undecided("tokens", answer, *told.problem))
        elif isinstance(entry, Check):
            checks.append(entry)
        else:
            checks += _of_choice(evidence, answer, told, policy, entry, asked)
    checks += equal_choices(evidence, policy, computed)
    return Report.of(checks, model=evidence.model[:200] or None, engines=Engines(verifier=policy.engine))


def _of_choice(
    evidence: Evidence, answer: Answer, told: Tokenised, policy: Policy, computed: Computed, asked: int | None
) -> Iterator[Check]:
    prompt = _prompt(evidence, answer, asked, clock=policy.clock)
    yield prompt  # 4
    if prompt.status == "undecided":
        return
    if told.source != "text" and evidence.says_text:  # 5
        yield check_text(evidence, answer, computed.prompt, decode=policy.decode, eos_token_ids=policy.eos_token_ids)
    yield check_finish(  # 6
        evidence,
        answer,
        decode=policy.decode,
        eos_token_ids=policy.eos_token_ids,
        prompt_tokens=len(computed.prompt),
        context_length=policy.context_length,
    )
    yield _tokens(evidence, answer, told, policy, computed)  # 7
    yield _response(answer, told, policy, computed)  # 8


def _prompt(evidence: Evidence, answer: Answer, asked: int | None, *, clock: bool) -> Check:
    said = counted(evidence.source[1].get("usage"), PROMPT_COUNTS)
    figures: dict[str, JsonValue] = {"said": said, "rendered": asked}
    if clock and evidence.chat is not None:
        message = "the chat template writes the time, so the prompt that was answered is not known; ask for completions"
        return _undecided("prompt", answer, "clock", message)
    if said is None or asked is None:
        return _unproven("prompt", answer, "`usage` does not say how many tokens it had", figures)
    if said != asked:
        message = (
            f"`usage` says {said} tokens, and here the request's prompts have {asked}: another prompt was answered"
        )
        return _undecided("prompt", answer, "prompt_length", message, figures)
    check = _unproven("prompt", answer, f"it has {asked} tokens, as `usage` says; not which they were", figures)
    return check.model_copy(update={"status": "weak"})


def _tokens(evidence: Evidence, answer: Answer, told: Tokenised, policy: Policy, computed: Computed) -> Check:
    check = check_tokens(
        answer,
        computed.sampling or evidence.sampling_of(answer),
        computed.scores,
        policy.thresholds.tokens or tokens.DEFAULT,
        decode=lambda token_ids: policy.decode(token_ids, False),
        constraint=computed.constraint,
    )
    figures = {**check.figures, "source": told.source}
    message = f"{check.message}; {SOURCES[told.source]}"
    if told.source == "text" and "log_ratios" in figures:
        figures["log_ratios"] = _below_0(figures["log_ratios"])
    if (
        told.source == "text"
        and check.status == "failed"
        and _may_be_spelled_otherwise(answer, check, policy, computed)
    ):
        more = "; but the model may have said this text in other tokens than its tokenizer's"
        update = {"status": "undecided", "reason": "retokenised", "message": message + more, "figures": figures}
        return check.model_copy(update=update)
    if check.status == "passed":
        return check.model_copy(update={"status": "weak", "reason": UNPROVEN, "message": message, "figures": figures})
    return check.model_copy(update={"message": message, "figures": figures})


def _may_be_spelled_otherwise(answer: Answer, check: Check, policy: Policy, computed: Computed) -> bool:
    """Whether another tokenisation of the text, of as many tokens, may be what makes an honest one look wrong.

    It makes sampled text more surprising, never less. Greedy text can only be of another where the model, at the first
    place that it would have another token, has one that the text goes on with.
    """
    if check.reason != "margin":
        return check.reason not in ("unsurprising", "unsurprising_window")
    if computed.scores is None:
        return True
    near = (policy.thresholds.tokens or tokens.DEFAULT).near
    place = next((i for i, margin in enumerate(computed.scores.margin) if margin > near), 0)
    rest = policy.decode(answer.token_ids[place:], True)
    preferred = policy.decode([int(computed.scores.best[place])], True)
    return bool(preferred) and rest.startswith(preferred)


def _below_0(ratios: JsonValue) -> JsonValue:
    """Those of the lack of surprise, which another tokenisation does not make larger."""
    given = ratios if isinstance(ratios, dict) else {}
    return {power: ratio for power, ratio in given.items() if power.startswith("-")}


def _response(answer: Answer, told: Tokenised, policy: Policy, computed: Computed) -> Check:
    if told.logprobs is None or computed.logprobs is None:
        why = (
            "the response reports no log-probabilities" if told.logprobs is None else "the verifier has none of its own"
        )
        return _unproven("response", answer, f"{why}, and nothing else of it is held against anything")
    own = {"raw": computed.logprobs}
    if computed.scores is not None and computed.scores.surprisal.any():
        own["processed"] = -computed.scores.surprisal
    bounds = (policy.thresholds.tokens or tokens.DEFAULT).of_logprobs()
    return check_reported(answer, told.logprobs, own, bounds)


def _prompt_tokens(evidence: Evidence, computed: Sequence[Computed | Check]) -> int | None:
    """Of all prompts together, each once; None if one is not known."""
    total = 0
    for entry in computed[:: evidence.choices_per_prompt]:
        if isinstance(entry, Check):
            return None
        total += len(entry.prompt)
    return total


def equal_choices(evidence: Evidence, policy: Policy, computed: Sequence[Computed | Check]) -> Iterator[Check]:
    """The failed checks of prompts whose choices begin more alike than the model draws them."""
    prompts: dict[int, list[tuple[Answer, Sampling, TokenScores | None]]] = {}
    for answer, entry in zip(evidence.answers, computed, strict=True):
        if not isinstance(entry, Check) and not answer.proofs.spans_weights:
            drawn = (answer, entry.sampling or evidence.sampling_of(answer), entry.scores)
            prompts.setdefault(answer.index // evidence.choices_per_prompt, []).append(drawn)
    for answers in prompts.values():
        check = check_equal_choices(answers, policy.thresholds.tokens or tokens.DEFAULT)
        if check is not None:
            yield check


def _unproven(
    name: CheckName, answer: Answer | None, message: str, figures: Mapping[str, JsonValue] | None = None
) -> Check:
    choice = None if answer is None else answer.index
    return Check(
        name=name, status="skipped", choice=choice, reason=UNPROVEN, message=message, figures={**(figures or {})}
    )


def _undecided(
    name: CheckName, answer: Answer, reason: str, message: str, figures: Mapping[str, JsonValue] | None = None
) -> Check:
    return Check(
        name=name,
        status="undecided",
        choice=answer.index,
        reason=reason,
        message=message,
        figures={**(figures or {})},
    )
