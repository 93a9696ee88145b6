"""Everything of SGLang that our code uses, in one list. The checks at start ask for it.

Each says where in SGLang it is, and which of our files use it: those of this folder, others from `proxy/` on. Nearly
all of it is private to SGLang, and moves with every version.
"""

from __future__ import annotations

from typing import Final

from ..reliance import Reliance

OLDEST, NEWEST = "0.5.17", "0.5.23"
"""Versions of SGLang between which the list was looked for in the sources of each."""

TESTED: Final = {"0.5.23": "on CPUs"}
"""Versions of SGLang that the tests were run with. Others have to look the same."""

# Command line

SERVER_ARGS: Final = Reliance.on("sglang.srt.server_args:ServerArgs", "serve/command", members="add_cli_args")
PREPARE: Final = Reliance.on("sglang.srt.server_args:prepare_server_args", "serve/command", parameters="argv")
CONFIG_FILES: Final = Reliance.on(
    "sglang.srt.utils.server_args_config_parser:ConfigArgumentMerger "
    "sglang.srt.server_args_config_parser:ConfigArgumentMerger",
    "serve/command",
    members="merge_config_with_args",
)
KILL: Final = Reliance.on(
    "sglang.srt.utils:kill_process_tree", "ending serve/command", keywords="include_parent skip_pid wait_timeout"
)
COMMAND_LINE: Final = (
    SERVER_ARGS,
    PREPARE,
    CONFIG_FILES,
    Reliance.on("sglang.launch_server:run_server", "serve/command", parameters="server_args"),
    Reliance.on("sglang.srt.plugins:load_plugins", "serve/command"),
    KILL,
)

# A process that serves HTTP

TOKENIZER_MANAGER: Final = Reliance.on(
    "sglang.srt.managers.tokenizer_manager:TokenizerManager",
    "generate replay prefill",
    members="_dispatch_to_scheduler _wait_one_response _handle_batch_output generate_request _init_req_state "
    "_tokenize_one_request",
)
TOKENIZED: Final = Reliance.on(
    "sglang.srt.managers.io_struct:TokenizedGenerateReqInput",
    "generate logprobs",
    members="rid input_ids sampling_params return_logprob top_logprobs_num token_ids_logprob mm_inputs "
    "input_embeds session_params bootstrap_room",
)
TOKENIZED_BATCH: Final = Reliance.on(
    "sglang.srt.managers.io_struct:BatchTokenizedGenerateReqInput", "generate", members="batch"
)
CHAT: Final = Reliance.on(
    "sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat.handle_request",
    "rehearsal",
    parameters="self request raw_request",
)
CHAT_PARSERS: Final = Reliance.on(
    "sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat", "rehearsal", attributes="reasoning_parser"
)
CHAT_REQUEST: Final = Reliance.on("sglang.srt.entrypoints.openai.protocol:ChatCompletionRequest", "rehearsal")
COMPLETION: Final = Reliance.on(
    "sglang.srt.entrypoints.openai.serving_completions:OpenAIServingCompletion.handle_request",
    "rehearsal",
    parameters="self request raw_request",
)
COMPLETION_REQUEST: Final = Reliance.on("sglang.srt.entrypoints.openai.protocol:CompletionRequest", "rehearsal")
RESPONSE: Final = Reliance.on(
    "sglang.srt.entrypoints.openai.serving_responses:OpenAIServingResponses.create_responses",
    "rehearsal",
    parameters="self request raw_request",
)
RESPONSE_REQUEST: Final = Reliance.on("sglang.srt.entrypoints.openai.protocol:ResponsesRequest", "rehearsal")
MESSAGE: Final = Reliance.on(
    "sglang.srt.entrypoints.anthropic.serving:AnthropicServing.handle_messages",
    "rehearsal",
    parameters="self request raw_request",
)
MESSAGE_REQUEST: Final = Reliance.on("sglang.srt.entrypoints.anthropic.protocol:AnthropicMessagesRequest", "rehearsal")
REASONING: Final = Reliance.on("sglang.srt.parser.reasoning_parser:ReasoningParser", "reasoning", attributes="detector")
TRACING: Final = Reliance.on("sglang.srt.observability.trace:", "tracing", members="tracer")
API_SERVER: Final = (
    TOKENIZER_MANAGER,
    TOKENIZED,
    TOKENIZED_BATCH,
    CHAT,
    CHAT_PARSERS,
    CHAT_REQUEST,
    COMPLETION,
    COMPLETION_REQUEST,
    RESPONSE,
    RESPONSE_REQUEST,
    MESSAGE,
    MESSAGE_REQUEST,
    REASONING,
    Reliance.on(
        "sglang.srt.parser.reasoning_parser:ReasoningParser.__init__",
        "reasoning",
        keywords="model_type stream_reasoning tokenizer",
    ),
    TRACING,
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager._dispatch_to_scheduler",
        "generate",
        parameters="self obj",
    ),
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager._wait_one_response",
        "generate",
        parameters="self obj request",
    ),
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager._handle_batch_output",
        "generate",
        parameters="self recv_obj",
    ),
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager.generate_request",
        "generate",
        parameters="self obj request",
    ),
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager._init_req_state",
        "replay",
        parameters="self obj request",
    ),
    Reliance.on(
        "sglang.srt.managers.tokenizer_manager:TokenizerManager._tokenize_one_request",
        "replay",
        parameters="self obj",
    ),
    Reliance.on("sglang.srt.managers.tokenizer_manager:ReqState", "generate early", members="obj"),
    Reliance.on("sglang.srt.managers.io_struct:BatchStrOutput", "early", members="rids finished_reasons output_ids"),
    Reliance.on(
        "sglang.srt.managers.io_struct:GenerateReqInput",
        "generate prefill replay rehearsal",
        members="input_ids sampling_params extra_key lora_path stream return_logprob contains_mm_input "
        "external_trace_header "
        "normalize_batch_and_arguments",
    ),
    Reliance.on(
        "sglang.srt.sampling.sampling_params:SamplingParams",
        "generate sampling replay runners/requests",
        members="custom_params max_new_tokens temperature top_p top_k min_p no_stop_trim skip_special_tokens "
        "spaces_between_special_tokens",
    ),
    Reliance.on("sglang.srt.sampling.sampling_params:TOP_K_ALL", "sampling"),
    Reliance.on(
        "sglang.srt.managers.schedule_batch:Req",
        "replay reasoning",
        members="update_finish_state finished update_reasoning_tokens",
        attributes="reasoning_tokens require_reasoning",
    ),
    Reliance.on("sglang.srt.entrypoints.http_server:", "endpoint serve/command", members="app uvicorn"),
    Reliance.on("sglang.srt.entrypoints.http_server:get_global_state", "startup"),
    Reliance.on("sglang.srt.entrypoints.http_server:_setup_and_run_http_server", "serve/command"),
)

# A scheduler

LOGITS_PROCESSOR: Final = Reliance.on(
    "sglang.srt.layers.logits_processor:LogitsProcessor", "runners/states head", members="forward"
)
MODEL_RUNNER: Final = Reliance.on(
    "sglang.srt.model_executor.model_runner:ModelRunner",
    "runners/steps runners/lifecycle",
    members="forward load_model",
)
SCHEDULER_CLASS: Final = Reliance.on(
    "sglang.srt.managers.scheduler:Scheduler",
    "runners/requests runners/lifecycle",
    members="run_batch process_batch_result init_model_worker",
)
REQUEST: Final = Reliance.on("sglang.srt.managers.schedule_batch:Req", "runners/requests", members="finished")
WEIGHT_UPDATER: Final = Reliance.on(
    "sglang.srt.managers.scheduler_components.weight_updater:SchedulerWeightUpdaterManager",
    "runners/changes",
    members="update_weights_from_disk update_weights_from_distributed update_weights_from_tensor "
    "update_weights_from_ipc tp_worker",
)
SCHEDULER: Final = (
    LOGITS_PROCESSOR,
    MODEL_RUNNER,
    SCHEDULER_CLASS,
    REQUEST,
    WEIGHT_UPDATER,
    Reliance.on(
        "sglang.srt.layers.logits_processor:LogitsProcessor.forward",
        "runners/states",
        parameters="self input_ids hidden_states lm_head logits_metadata",
    ),
    Reliance.on(
        "sglang.srt.layers.logits_processor:LogitsProcessorOutput", "runners/states", members="customized_info"
    ),
    Reliance.on(
        "sglang.srt.model_executor.model_runner:ModelRunner.forward", "runners/steps", parameters="self forward_batch"
    ),
    Reliance.on("sglang.srt.model_executor.model_runner:ModelRunnerOutput", "runners/steps", members="logits_output"),
    Reliance.on(
        "sglang.srt.model_executor.forward_batch_info:ForwardBatch",
        "runners/steps",
        members="forward_mode rids seq_lens_cpu extend_prefix_lens_cpu extend_seq_lens_cpu positions input_ids",
    ),
    Reliance.on(
        "sglang.srt.model_executor.forward_batch_info:ForwardMode", "runners/steps", members="EXTEND MIXED DECODE"
    ),
    Reliance.on("sglang.srt.managers.scheduler:Scheduler.run_batch", "runners/requests", parameters="self batch"),
    Reliance.on(
        "sglang.srt.managers.scheduler:Scheduler.process_batch_result",
        "runners/requests",
        parameters="self batch result",
    ),
    Reliance.on(
        "sglang.srt.managers.schedule_batch:Req.__init__",
        "runners/requests replay",
        parameters="self rid origin_input_text origin_input_ids sampling_params",
        keywords="require_reasoning eos_token_ids vocab_size",
    ),
    Reliance.on("sglang.srt.managers.schedule_batch:ScheduleBatch", "runners/requests", members="reqs forward_mode"),
    Reliance.on(
        "sglang.srt.runtime_context:get_parallel",
        "runners/ranks mode head",
    ),
)
