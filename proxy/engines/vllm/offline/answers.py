"""Requests of a server answered without one, and `LLM` by the options of `toploc serve`."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal

from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from toploc.errors import ToplocError
from toploc.protocol import FIELD_NAME

from ..serve.command import make_parser
from .llm import LLM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vllm.outputs import RequestOutput

    from toploc.report import Report

OPTIONS: Final = ("max_tokens", "temperature", "top_p", "ignore_eos", "seed")
"""Of a request, that are handed to the engine under the same name."""


def llm_by_flags(model: str, flags: Sequence[str]) -> LLM:
    """`LLM` with those of `toploc serve`'s options that are the engine's; vLLM's own parser ends the call for others
    that are none."""
    _, parser = make_parser()
    args = parser.parse_args(["serve", model, *flags])
    # As `vllm serve` does with its first argument (vllm/entrypoints/cli/serve.py).
    args.model = model
    engine = vars(EngineArgs.from_cli_args(args))
    return LLM(
        **{name: value for name, value in engine.items() if name != "disable_log_stats"},
        toploc_seed_requests=args.toploc_seed_requests,
        toploc_thresholds=args.toploc_thresholds,
        toploc_copy_head=args.toploc_copy_head,
    )


def answer(llm: LLM, route: Literal["chat", "completion"], bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The response to each of these bodies that a server of the same model would give: plain text, one choice.

    Raises ToplocError for prompts that the model does not take.
    """
    defaults = llm.model_config.get_diff_sampling_param()
    params = [
        SamplingParams.from_optional(**{**defaults, **{name: body[name] for name in OPTIONS if name in body}})
        for body in bodies
    ]
    try:
        if route == "chat":
            outputs = llm.chat([body["messages"] for body in bodies], params, use_tqdm=False)
        else:
            outputs = llm.generate([body["prompt"] for body in bodies], params, use_tqdm=False)
    except (ValueError, VLLMValidationError) as error:
        hint = "; without a chat template: --route completion" if "chat template" in str(error) else ""
        raise ToplocError(f"{error}{hint}") from None
    return [_response(route, body, output) for body, output in zip(bodies, outputs, strict=True)]


def reports_on(llm: LLM, items: Iterable[bytes]) -> Iterator[Report]:
    """A report on each piece of evidence in JSON, in their order, without the check on tokens.

    Raises UnsupportedEngine for a model that does not generate, or has no tokenizer.
    """
    waiting: dict[int, Report] = {}
    following = 0
    for place, report in llm.toploc_verification.reports_on(items):
        waiting[place] = report
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _response(route: str, body: Mapping[str, Any], output: RequestOutput) -> dict[str, Any]:
    [made] = output.outputs
    asked, said = len(output.prompt_token_ids or ()), len(made.token_ids)
    chat = route == "chat"
    text = {"message": {"role": "assistant", "content": made.text}} if chat else {"text": made.text}
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, **text, "finish_reason": made.finish_reason, "stop_reason": made.stop_reason}],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
        FIELD_NAME: made.toploc_proofs.model_dump(mode="json", exclude_none=True),
    }
