"""The engine's part of a rehearsal: outputs of the tokens that an answer claims.

Nothing is generated. SGLang's own tokenizer manager reads the prompt and the options, and its own request says where
the answer ends, and why. Text is made as its detokenizer makes it.
"""

from __future__ import annotations

from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final

from sglang.srt.managers.schedule_batch import Req

from toploc.scheme import CHUNK_SIZE

from ...verify.engine import Text
from .call import Call
from .logprobs import Reported
from .outputs import Outputs, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...verify.engine import Claim, Scored
    from .reasoning import Reasoning

TOKENS_AT_ONCE: Final = CHUNK_SIZE
"""In one output, so that it is known where in the text the chunks of a proof are."""

BEFORE: Final = 5
"""Tokens of a prompt that are decoded before an answer, so that its first token is text as in its place
(sglang/srt/managers/schedule_batch.py, INIT_INCREMENTAL_DETOKENIZATION_OFFSET)."""

UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
"""Where a token ends within a character."""

GRAMMARS: Final = ("json_schema", "regex", "ebnf", "structural_tag")
"""Options with which an answer also ends where its grammar does."""


class Unreplayable(Exception):
    """A request whose response cannot be made without the engine. The message says what of it."""


class Unended(Exception):
    """The engine would have gone on, or have ended before.

    Attributes:
        choice: its number in the response.
        count: tokens after which it ends; None if it does not.
    """

    def __init__(self, choice: int, count: int | None) -> None:
        super().__init__(choice, count)
        self.choice = choice
        self.count = count


class Replayer:
    """Answers in the engine's place.

    Args:
        manager: the process's TokenizerManager.
        reasoning: how the scheduler counts an answer's tokens of reasoning.
    """

    def __init__(self, manager: Any, reasoning: Reasoning) -> None:
        self._manager = manager
        self._reasoning = reasoning
        self._tokenizer = manager.tokenizer

    async def read(self, obj: Any, limit: int | None = None) -> Call:
        """What SGLang makes of prompt and options, before its scheduler.

        Args:
            obj: GenerateReqInput of one prompt.
            limit: of tokens, in place of the prompt's own.

        Raises:
            Unreplayable: the prompt is more than tokens.
            Exception: whatever SGLang raises for these.
        """
        if obj.contains_mm_input() or obj.input_embeds is not None or obj.session_params is not None:
            raise Unreplayable("only prompts of tokens are rehearsed by this server")
        self._manager._init_req_state(obj, None)
        try:
            request = await self._manager._tokenize_one_request(obj)
        finally:
            self._manager.rid_to_state.pop(obj.rid, None)
        params = request.sampling_params
        # As the scheduler bounds it (init_req_max_new_tokens), but for the memory that this server has.
        room = self._manager.context_len - len(request.input_ids) - 2
        params.max_new_tokens = min(limit or params.max_new_tokens or room, room)
        return Call(request, obj.lora_path if isinstance(obj.lora_path, str) else None)

    def outputs(
        self,
        obj: Any,
        call: Call,
        choice: int,
        claim: Claim,
        scored: Scored,
        texts: list[Text],
        *,
        tokens_at_once: int,
        by_text: bool,
    ) -> list[dict[str, Any]]:
        """What `generate_request` would give for this choice and its log-probabilities; adds its text to `texts`.

        Raises:
            Unended: it has fewer or more tokens than until its end.
            Unreplayable: where it ends, or something in its response, only the engine knows.
        """
        token_ids = list(claim.token_ids)
        if not claim.proven:
            raise Unreplayable("an answer whose tokens are not proven is not rehearsed by this server")
        reason, reasoning = self._end(obj, call, choice, token_ids)
        whole = self._text(call, token_ids, reason)

        def said_up_to(end: int) -> str:
            """What a stream has said by then."""
            return commonprefix([whole, self._text(call, token_ids[:end], None)])  # noqa: RUF071

        count = len(token_ids)
        chunks = [len(said_up_to(end)) for end in range(CHUNK_SIZE, count, CHUNK_SIZE)]
        texts.append(Text(whole, (0, *chunks, len(whole))))
        ends = range(tokens_at_once, count, tokens_at_once) if obj.stream else ()
        steps = [*(Step(said_up_to(end), end, None) for end in ends), Step(whole, count, reason)]
        reported = None
        if scored.answer is not None and obj.stream and not by_text:
            said = [said_up_to(end) for end in range(count)]
            if any(before == after for before, after in pairwise(said)):
                # In events of chats they stand beside text alone (OpenAIServingChat._generate_stream_content).
                raise Unreplayable("a stream has log-probabilities of tokens without text by how it was divided")
        if scored.answer is not None:
            lists = call.request.top_logprobs_num > 0
            reported = Reported(scored.answer, self._tokenizer, lists=lists, by_text=by_text)
        # SGLang 0.5.17 has no such field.
        prompt = list(call.token_ids) if getattr(obj, "return_prompt_token_ids", False) else None
        weights = self._weight_version()
        outputs = Outputs(obj.rid, len(call.token_ids), token_ids, reasoning, reported, weights, prompt)
        is_of_deltas = obj.stream and self._manager.incremental_streaming_output
        return outputs.deltas(steps) if is_of_deltas else outputs.whole(steps)

    def _weight_version(self) -> Any:
        config_value = getattr(self._manager, "config_value", None)
        return config_value("weight_version") if config_value else self._manager.server_args.weight_version

    def _end(self, obj: Any, call: Call, choice: int, token_ids: Sequence[int]) -> tuple[dict[str, Any], Sequence[int]]:
        """Why the answer ends, and how much of it is reasoning, by the rules of SGLang's own scheduler, which is asked
        after each token."""
        config, request = self._manager.model_config, call.request
        if obj.require_reasoning and self._reasoning.is_selected:
            raise Unreplayable("where the request says what ends reasoning, how much there is is not rehearsed")
        ended = Req(
            request.rid,
            request.input_text,
            request.input_ids,
            request.sampling_params,
            require_reasoning=obj.require_reasoning,
            eos_token_ids=config.hf_eos_token_id,
            vocab_size=config.vocab_size,
        )
        ended.tokenizer = self._tokenizer
        reasoning = []
        for count, token in enumerate(token_ids, 1):
            ended.output_ids.append(token)
            reasoning.append(self._reasoning.count(ended, token))
            ended.update_finish_state()
            if ended.finished():
                if count < len(token_ids):
                    raise Unended(choice, count)
                return ended.finished_reason.to_json(), reasoning
        if any(getattr(request.sampling_params, name, None) for name in GRAMMARS):
            raise Unreplayable("where a grammar ends an answer is not rehearsed by this server")
        raise Unended(choice, None)

    def _text(self, call: Call, token_ids: list[int], reason: dict[str, Any] | None) -> str:
        """As DetokenizerManager (sglang/srt/managers/detokenizer_manager.py) makes it: without what ended the answer,
        unless the request wants that."""
        params = call.request.sampling_params
        matched = None if reason is None else reason.get("matched")
        if isinstance(matched, int) and not params.no_stop_trim:
            token_ids = token_ids[:-1]
        before = call.token_ids[-BEFORE:]
        text = self._decode(before + token_ids, params)[len(self._decode(before, params)) :]
        if reason is None:
            return text.rstrip(UNFINISHED)
        at = text.find(matched) if isinstance(matched, str) else -1
        if at < 0 or not isinstance(matched, str):
            return text
        return text[: at + len(matched)] if params.no_stop_trim else text[:at]

    def _decode(self, token_ids: list[int], params: Any) -> str:
        return str(
            self._tokenizer.decode(
                token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
        )
