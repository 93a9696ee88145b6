"""One verification: the rehearsal of the answer, the prefills of its choices, and the report on both."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from toploc.checks.response import Ended, Rehearsed, compared
from toploc.checks.text import shown_tokens
from toploc.evidence.forms import Forms, is_other
from toploc.evidence.leaves import OF_THE_ENGINE, WEIGHT_VERSIONS, Logprobs, has_several_weights
from toploc.evidence.unfinished import unfinished
from toploc.thresholds.tokens import DEFAULT
from toploc.verifier.judge import judge, not_computable
from toploc.verifier.kinds import ends_alike, reports_alike, writes_alike

from .engine import Claim, Performance
from .prefills import Prefills

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toploc.evidence.evidence import Evidence
    from toploc.report import Check, Report
    from toploc.tokens.sampling import Sampling
    from toploc.verifier.judge import Computed

    from .engine import Engine
    from .verifier import EngineVerifier

WAYS: Final[Sequence[Mapping[str, bool]]] = ({"stream": True}, {"stream": True, "one_by_one": True}, {})
"""To rehearse a stream: in large pieces; token by token, which parsers may read otherwise; and as a whole, since others
than this project's client may keep it in that form. Of /v1/responses all keep what the last event brings."""


class Verification:
    """Of one evidence."""

    def __init__(self, verifier: EngineVerifier, evidence: Evidence, alternative: int = 0) -> None:
        self._verifier = verifier
        self._evidence = evidence
        self._alternative = alternative
        self.alternatives = 1
        """How many there are, once the report is there: see `Engine.alternatives`."""

    async def report(self) -> Report:
        """Raises whatever the engine raises."""
        if any(told.problem is not None for told in self._evidence.tokenised):
            return await self._verifier.in_thread(self._untold)
        async with Prefills(self._verifier, self._evidence, self._alternative) as prefills:
            performance, compared = await self._rehearse(prefills)
            self.alternatives = max(map(self._verifier.engine.alternatives, performance.prompts), default=1)
            size, prompts = self._evidence.choices_per_prompt, performance.prompts
            computed: list[Computed | Check] = []
            for answer in self._evidence.answers:
                if answer.index // size < len(prompts):
                    computed.append(await prefills.computed(answer, prompts[answer.index // size]))
                else:
                    reason = "media_unavailable" if performance.unfetched else "unrenderable"
                    message = f"this server cannot render it: {performance.problem}"
                    computed.append(not_computable(answer, "prompt", reason, message))
        return await self._verifier.in_thread(partial(self._judge, performance, compared, computed))

    def _untold(self) -> Report:
        """Of an answer without proofs whose tokens are not known: nothing of it goes into the engine."""
        answers = self._evidence.answers
        unknown = [not_computable(answer, "tokens", "token_ids", "they are not all known") for answer in answers]
        return judge(self._evidence, self._verifier.policy, unknown)

    async def _rehearse(self, prefills: Prefills) -> tuple[Performance, list[Rehearsed] | None]:
        """The first way in which the route says what the response says; else the first of all. Beside it what came of
        comparing the two, where there was a choice of ways."""
        evidence, size = self._evidence, self._evidence.choices_per_prompt
        claims = [Claim(answer.token_ids, answer.proofs.error is None) for answer in evidence.answers]
        choices: list[Sequence[Claim]] = [claims[at : at + size] for at in range(0, len(claims), size)]
        engine = self._verifier.engine
        if any(token >= engine.vocab_size for claim in claims for token in claim.token_ids):
            choices = []
        is_stream = evidence.source[0].get("stream") is True
        # Without proofs there is nothing to compare, and only the prompt is wanted.
        ways = WAYS[-1:] if not is_stream or evidence.proofless else WAYS[:-1] if evidence.route == "response" else WAYS
        first: tuple[Performance, list[Rehearsed]] | None = None
        for way in ways:
            performance = await engine.rehearsal.perform(
                evidence.route, evidence.source[0], choices, prefills, evidence.tool_outputs, **way
            )
            if len(ways) == 1:
                return performance, None
            parts = await self._verifier.in_thread(partial(self._compare, performance))
            if all(part.comparison is not None and part.comparison.same for part in parts):
                return performance, parts
            first = first or (performance, parts)
        return first or (Performance(), None)

    def _judge(
        self, performance: Performance, compared: list[Rehearsed] | None, computed: Sequence[Computed | Check]
    ) -> Report:
        names = self._verifier.names
        policy = replace(self._verifier.policy, names=self._verifier.served_names())
        if self._evidence.proofless:
            return judge(self._evidence, policy, computed)
        return judge(self._evidence.under_one_name(names), policy, computed, compared or self._compare(performance))

    def _compare(self, performance: Performance) -> list[Rehearsed]:
        if performance.ended is not None:
            index, count = performance.ended
            if self._is_of_another and not ends_alike(self._evidence):
                return [Rehearsed(problem="another kind of engine answered, which may end it elsewhere")]
            return [Rehearsed(ended=Ended(index, len(self._evidence.answers[index].token_ids), count))]
        if performance.response is None:
            return [Rehearsed(problem=performance.problem)]
        logprobs = None
        # The verifier's own are of one version of the weights.
        is_one_version = not any(answer.proofs.spans_weights for answer in self._evidence.answers)
        is_alike = not self._is_of_another or reports_alike(self._evidence)
        if performance.scored and is_one_version and is_alike:
            margin = (self._verifier.policy.thresholds.tokens or DEFAULT).margin
            engine = self._verifier.engine
            is_of_one = engine.reports == "logprobs"
            logprobs = Logprobs(
                margin,
                performance.asked,
                engine.spelled,
                engine.vocab_size,
                of_one=is_of_one,
                chosen_first=performance.chosen_first,
            )
        several = any(has_several_weights(choice) for choice in self._evidence.source[1].get("choices") or ())
        return compared(
            self._evidence,
            performance.response,
            unbound={*OF_THE_ENGINE, *((WEIGHT_VERSIONS,) if several else ())},
            forms=self._forms(performance),
            logprobs=logprobs,
            chunk_offsets=self._chunk_offsets(performance),
            sampling=self._sampling(performance),
        )

    def _sampling(self, performance: Performance) -> Sampling | None:
        """The options that this engine was handed; None where it came to no prompt."""
        handed = (self._verifier.engine.sampling_of(one, self._evidence.sampling) for one in performance.prompts)
        return next(handed, None)

    @property
    def _is_of_another(self) -> bool:
        return is_other(self._evidence.proofs.engine, self._verifier.policy.engine)

    def _forms(self, performance: Performance) -> Forms:
        evidence, engine = self._evidence, self._verifier.engine
        decode = partial(_decoded, engine, evidence.request.skip_special_tokens is not False)
        ends = {
            unfinished(shown_tokens(evidence, answer, engine.eos_token_ids), decode)
            for answer in evidence.answers
            if answer.token_ids
        }
        texts = {text.text for text in performance.texts.values()} if writes_alike(evidence) else ()
        return Forms(texts, ends - {""}, self._is_of_another)

    def _chunk_offsets(self, performance: Performance) -> dict[int, list[int]]:
        """Of the answers whose text no parser has changed. With `echo` something stands before it."""
        offsets = {}
        for answer in self._evidence.answers:
            found, shown = performance.texts.get(answer.index), answer.text or ""
            if found is not None and found.text and shown.endswith(found.text):
                begin = len(shown) - len(found.text)
                offsets[answer.index] = [begin + offset for offset in found.offsets]
        return offsets


def _decoded(engine: Engine, skip_special_tokens: bool, token_ids: Sequence[int]) -> str:
    return engine.decode(token_ids, skip_special_tokens)
