"""Everything of vLLM that our code uses, in one list. The checks at start ask for it, and `make compat` looks for it in
the sources of every version (docs/vllm-versions.md). Add here what you use, then run `make compat`.

Each says where in vLLM it is, and which of our files use it: those of this folder, others from `proxy/` on.
"""

from __future__ import annotations

from typing import Final

from ..reliance import Reliance

TESTED: Final = {"0.26.0": "on GPUs", "0.32.0": "on CPUs", "0.33.0": "on GPUs"}
"""Versions of vLLM that the tests were run with. Others have to look the same to the adapters."""

# Command line

CLI_ENV_SETUP: Final = Reliance.on(
    "vllm.entrypoints.common.startup:cli_env_setup vllm.entrypoints.serve.utils.api_utils:cli_env_setup",
    "serve/command",
)
CONFIGURE_LOGGING: Final = Reliance.on(
    "vllm.logger:configure_logging_from_args", "serve/command", parameters="args", without="the step is left out"
)
COMMAND_LINE: Final = (
    CLI_ENV_SETUP,
    CONFIGURE_LOGGING,
    Reliance.on("vllm.entrypoints.cli.serve:ServeSubcommand", "serve/command", members="subparser_init validate cmd"),
    Reliance.on("vllm.utils.argparse_utils:FlexibleArgumentParser", "serve/command", members="parse_args"),
    Reliance.on(
        "vllm.engine.arg_utils:EngineArgs",
        "serve/refusals serve/command startup",
        members="model served_model_name speculative_config kv_sharing_fast_prefill enable_chunked_prefill "
        "enable_elastic_ep prefill_context_parallel_size distributed_executor_backend nnodes node_rank "
        "data_parallel_size data_parallel_size_local data_parallel_backend data_parallel_hybrid_lb "
        "data_parallel_external_lb data_parallel_multi_port_external_lb logits_processors "
        "tokens_only skip_tokenizer_init",
    ),
    Reliance.on(
        "vllm.entrypoints.common.cli_args:make_arg_parser vllm.entrypoints.launchers.cli_args:make_arg_parser "
        "vllm.entrypoints.openai.cli_args:make_arg_parser",
        "serve/refusals serve/command",
        texts="--grpc --headless",
    ),
    Reliance.on(
        "vllm.envs:",
        "serve/plugins serve/command proxy/doctor/engine",
        texts="VLLM_PLUGINS VLLM_LOGGING_LEVEL VLLM_RAY_EXTRA_ENV_VARS_TO_COPY",
    ),
    Reliance.on(
        "vllm.envs:", "serve/refusals plugin", members="VLLM_USE_RUST_FRONTEND", without="there is no such front end"
    ),
)

# Plugins

PLUGINS: Final = (
    Reliance.on(
        "vllm.plugins:",
        "serve/plugins proxy/doctor/engine",
        texts="vllm.general_plugins vllm.endpoint_plugins vllm.platform_plugins vllm.io_processor_plugins "
        "vllm.stat_logger_plugins",
    ),
    Reliance.on("vllm.plugins:load_plugins_by_group", "proxy/doctor/engine", parameters="group"),
    Reliance.on(
        "vllm.plugins.endpoint_plugins.interface:EndpointPlugin",
        "endpoint",
        members="name required_tasks attach_router init_state",
    ),
    Reliance.on(
        "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.attach_router", "endpoint", parameters="self app"
    ),
    Reliance.on(
        "vllm.plugins.endpoint_plugins.interface:EndpointPlugin.init_state",
        "endpoint",
        parameters="self engine_client state args",
    ),
    Reliance.on("vllm.tasks:SupportedTask", "endpoint"),
    Reliance.on("vllm.tasks:", "endpoint", texts="generate"),
)

# The engine, as an API server sees it

ENGINE: Final = Reliance.on(
    "vllm.v1.engine.async_llm:AsyncLLM", "early prefill", attributes="engine_core output_processor"
)
ENGINE_CORE: Final = Reliance.on(
    "vllm.v1.engine.core_client:AsyncMPClient", "early", attributes="add_request_async get_output_async"
)
ADD_REQUEST: Final = Reliance.on(
    "vllm.v1.engine.core_client:AsyncMPClient.add_request_async", "early", parameters="self request"
)
REQUEST_STATES: Final = Reliance.on(
    "vllm.v1.engine.output_processor:OutputProcessor", "early prefill", attributes="request_states"
)
ENGINE_END: Final = Reliance.on(
    "vllm.v1.engine.async_llm:AsyncLLM", "shutdown", attributes="shutdown output_processor dead_error"
)
REQUESTS_END: Final = Reliance.on(
    "vllm.v1.engine.output_processor:OutputProcessor", "shutdown", attributes="propagate_error"
)
FRONT_END: Final = (
    ENGINE,
    ENGINE_CORE,
    ADD_REQUEST,
    REQUEST_STATES,
    ENGINE_END,
    REQUESTS_END,
    Reliance.on(
        "vllm.engine.protocol:EngineClient",
        "startup endpoint early shutdown prefill replay rehearsal proxy/verify/engine",
        members="vllm_config renderer generate errored dead_error is_tracing_enabled",
    ),
    Reliance.on(
        "vllm.v1.engine.async_llm:AsyncLLM.generate",
        "generate prefill",
        parameters="self prompt sampling_params request_id",
        keywords="lora_request priority trace_headers reasoning_ended reasoning_parser_kwargs",
    ),
    Reliance.on(
        "vllm.exceptions:GracefulHTTPError",
        "prefill",
        attributes="http_status",
        without="queues have no limit, or a full one is an HTTP 500",
    ),
    Reliance.on("vllm.v1.engine.async_llm:AsyncLLM.shutdown", "shutdown", parameters="self timeout"),
    Reliance.on("vllm.renderers:BaseRenderer", "prefill", members="get_tokenizer"),
    Reliance.on("vllm.v1.engine.output_processor:RequestState", "early", attributes="detokenizer"),
    Reliance.on("vllm.v1.engine.detokenizer:IncrementalDetokenizer", "early", attributes="output_token_ids"),
    Reliance.on(
        "vllm.v1.engine:EngineCoreRequest", "early replay", members="request_id prompt_token_ids sampling_params"
    ),
    Reliance.on("vllm.v1.engine:EngineCoreOutputs", "early", members="outputs"),
    Reliance.on("vllm.v1.engine:EngineCoreOutput", "early", members="request_id new_token_ids finish_reason"),
    Reliance.on("vllm.v1.engine:FinishReason", "early replay", members="__str__"),
    Reliance.on("vllm.v1.engine:", "early generate", texts="abort error"),
    Reliance.on("vllm.v1.engine.parallel_sampling:ParentRequest", "proxy/channel/tag", texts="_"),
)

# Requests and answers

RENDERER: Final = Reliance.on("vllm.renderers:BaseRenderer", "media", attributes="_process_multimodal_async")
REQUESTS: Final = (
    Reliance.on(
        "vllm.sampling_params:SamplingParams",
        "generate prefill rehearsal",
        members="n seed temperature max_tokens detokenize output_kind extra_args skip_reading_prefix_cache "
        "sampling_type",
    ),
    Reliance.on("vllm.sampling_params:RequestOutputKind", "generate prefill", members="DELTA FINAL_ONLY"),
    Reliance.on("vllm.outputs:RequestOutput", "generate prefill", attributes="outputs prompt_token_ids"),
    Reliance.on("vllm.outputs:CompletionOutput", "generate", members="index token_ids finish_reason"),
    Reliance.on("vllm.lora.request:LoRARequest", "generate prefill", members="lora_name lora_int_id"),
    Reliance.on(
        "vllm.inputs.engine:TokensInput",
        "prefill rehearsal",
        members="type prompt_token_ids",
        texts="token",
    ),
    Reliance.on("vllm.inputs.engine:EmbedsInput", "generate", texts="embeds"),
    Reliance.on(
        "vllm.inputs.engine:MultiModalInput",
        "media call",
        members="type prompt_token_ids mm_kwargs mm_hashes mm_placeholders",
        texts="multimodal",
    ),
    RENDERER,
    Reliance.on(
        "vllm.renderers.base:BaseRenderer._process_multimodal", "media", parameters="self prompt mm_data mm_uuids"
    ),
    Reliance.on("vllm.multimodal.media:MediaConnector.load_from_url_async", "media", parameters="self url media_io"),
    Reliance.on("vllm.multimodal.media:MediaWithBytes", "media", members="original_bytes"),
    Reliance.on("vllm.multimodal.inputs:PlaceholderRange", "media", members="offset length"),
    Reliance.on("vllm.inputs.engine:EncoderDecoderInput", "generate", texts="enc_dec"),
    Reliance.on("vllm.tracing:extract_trace_context", "tracing", parameters="headers"),
    Reliance.on(
        "vllm.tracing:instrument_manual", "tracing", parameters="span_name start_time end_time attributes context"
    ),
)

# Routes, which render prompts

SANITIZE_MESSAGE: Final = Reliance.on(
    "vllm.entrypoints.serve.exception_handling.utils:sanitize_message "
    "vllm.entrypoints.serve.utils.api_utils:sanitize_message",
    "rehearsal",
    parameters="message",
)
CHAT: Final = Reliance.on(
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.create_chat_completion",
    "rehearsal",
    parameters="self request raw_request",
)
CHAT_REQUEST: Final = Reliance.on("vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest", "rehearsal")
BATCH: Final = Reliance.on(
    "vllm.entrypoints.openai.chat_completion.batch_serving:OpenAIServingChatBatch.create_batch_chat_completion",
    "rehearsal",
    parameters="self request raw_request",
)
BATCH_REQUEST: Final = Reliance.on(
    "vllm.entrypoints.openai.chat_completion.protocol:BatchChatCompletionRequest", "rehearsal"
)
COMPLETION: Final = Reliance.on(
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.create_completion",
    "rehearsal",
    parameters="self request raw_request",
)
COMPLETION_REQUEST: Final = Reliance.on("vllm.entrypoints.openai.completion.protocol:CompletionRequest", "rehearsal")
RESPONSE: Final = Reliance.on(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.create_responses",
    "rehearsal",
    parameters="self request raw_request",
)
RESPONSE_REQUEST: Final = Reliance.on("vllm.entrypoints.openai.responses.protocol:ResponsesRequest", "rehearsal")
MESSAGE: Final = Reliance.on(
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.create_messages",
    "rehearsal",
    parameters="self request raw_request",
)
MESSAGE_REQUEST: Final = Reliance.on("vllm.entrypoints.anthropic.protocol:AnthropicMessagesRequest", "rehearsal")
TOKENS: Final = Reliance.on(
    "vllm.entrypoints.scale_out.token_in_token_out.serving:ServingTokens.serve_tokens",
    "rehearsal",
    parameters="self request raw_request",
)
TOKENS_REQUEST: Final = Reliance.on(
    "vllm.entrypoints.scale_out.token_in_token_out.protocol:GenerateRequest",
    "rehearsal",
    members="token_ids sampling_params",
)
ROUTES: Final = (
    SANITIZE_MESSAGE,
    CHAT_REQUEST,
    BATCH_REQUEST,
    COMPLETION_REQUEST,
    RESPONSE_REQUEST,
    MESSAGE_REQUEST,
    TOKENS_REQUEST,
    Reliance.on(
        "vllm.entrypoints.generate.api_router:init_generate_state",
        "rehearsal",
        attributes="openai_serving_chat openai_serving_chat_batch openai_serving_completion openai_serving_responses "
        "anthropic_serving_messages",
    ),
    Reliance.on("vllm.entrypoints.scale_out.factories:init_scale_out_state", "rehearsal", attributes="serving_tokens"),
    Reliance.on(
        "vllm.entrypoints.launchers.api_server.app_state:init_app_state "
        "vllm.entrypoints.openai.api_server:init_app_state",
        "prefill",
        attributes="openai_serving_models",
    ),
    Reliance.on(
        "vllm.entrypoints.openai.models.serving:OpenAIServingModels",
        "prefill",
        attributes="lora_requests",
    ),
    CHAT,
    BATCH,
    COMPLETION,
    RESPONSE,
    MESSAGE,
    TOKENS,
    Reliance.on(
        "vllm.envs:", "startup", members="VLLM_ENABLE_RESPONSES_API_STORE", without="no response is fetched later"
    ),
    Reliance.on(
        "vllm.entrypoints.cohere.protocol:MessageEndEvent",
        "proxy/answers/responder",
        texts="message-end",
        without="there is no such route",
    ),
    Reliance.on("vllm.utils:random_uuid", "proxy/stores/proofs", without="ids have another form, and no proofs kept"),
)

# Rehearsals, in which the engine's part is replayed

ENGINE_INPUT: Final = Reliance.on(
    "vllm.v1.engine.async_llm:AsyncLLM",
    "replay",
    attributes="input_processor renderer model_config get_supported_tasks",
)
WEIGHT_VERSION: Final = Reliance.on(
    "vllm.v1.engine.output_processor:OutputProcessor.process_outputs",
    "replay",
    keywords="weight_version",
    without="responses name no weights",
)
REPLAY: Final = (
    ENGINE_INPUT,
    Reliance.on("vllm.logprobs:Logprob", "logprobs", members="decoded_token"),
    Reliance.on("vllm.outputs:CompletionOutput", "logprobs", members="logprobs"),
    Reliance.on("vllm.outputs:RequestOutput", "logprobs replay rehearsal", attributes="outputs prompt_logprobs"),
    Reliance.on(
        "vllm.v1.engine.input_processor:InputProcessor.process_inputs",
        "replay",
        parameters="self request_id prompt params",
        keywords="supported_tasks lora_request",
    ),
    Reliance.on("vllm.v1.engine.input_processor:InputProcessor", "replay", members="assign_request_id"),
    Reliance.on(
        "vllm.renderers.inputs.preprocess:extract_prompt_components", "replay", parameters="model_config prompt"
    ),
    Reliance.on("vllm.v1.core.sched.utils:check_stop", "replay", parameters="request max_model_len"),
    Reliance.on(
        "vllm.v1.request:Request",
        "replay",
        members="from_engine_core_request append_output_token_ids get_finished_reason num_tokens",
        attributes="stop_reason max_tokens",
    ),
    Reliance.on(
        "vllm.v1.engine:EngineCoreOutput",
        "replay",
        members="request_id new_token_ids new_logprobs new_prompt_logprobs_tensors finish_reason stop_reason",
    ),
    Reliance.on(
        "vllm.v1.engine.output_processor:OutputProcessor.add_request",
        "replay",
        parameters="self request prompt parent_req request_index queue",
    ),
    Reliance.on(
        "vllm.v1.engine.output_processor:OutputProcessor.process_outputs",
        "replay",
        parameters="self engine_core_outputs",
    ),
    WEIGHT_VERSION,
    Reliance.on(
        "vllm.v1.engine.output_processor:OutputProcessor", "replay", attributes="request_states", members="add_request"
    ),
    Reliance.on("vllm.v1.engine.output_processor:RequestState", "replay", attributes="detokenizer"),
    Reliance.on("vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer", "replay", attributes="output_text"),
    Reliance.on("vllm.v1.engine.output_processor:OutputProcessorOutput", "replay", members="request_outputs"),
    Reliance.on("vllm.v1.engine.parallel_sampling:ParentRequest", "replay", members="get_child_info"),
    Reliance.on("vllm.v1.outputs:LogprobsLists", "replay"),
    Reliance.on("vllm.v1.outputs:LogprobsTensors", "replay"),
    Reliance.on(
        "vllm.sampling_params:SamplingParams",
        "call constraints logprobs replay rehearsal",
        members="n stop stop_token_ids all_stop_token_ids eos_token_id structured_outputs logprobs num_logprobs "
        "prompt_logprobs logprob_token_ids",
    ),
    Reliance.on(
        "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses", "rehearsal", attributes="tool_server"
    ),
    Reliance.on("vllm.entrypoints.mcp.tool_server:ToolServer", "tools", members="new_session"),
)

# Grammars, which answers are followed through

GRAMMARS: Final = Reliance.on(
    "vllm.v1.structured_output:StructuredOutputManager",
    "grammars",
    members="grammar_init grammar_bitmask accept_tokens",
    without="the check on tokens skips answers under a grammar",
)
BUDGETS: Final = Reliance.on(
    "vllm.v1.sample.thinking_budget_state:ThinkingBudgetStateHolder",
    "budgets",
    members="sync_batch update_state apply_to_logits",
    without="the check on tokens skips answers under a thinking budget",
)
CONSTRAINTS: Final = (
    GRAMMARS,
    BUDGETS,
    Reliance.on(
        "vllm.v1.sample.thinking_budget_state:ThinkingBudgetStateHolder.apply_to_logits",
        "budgets",
        parameters="self logits predict_bonus_token spec_token_ids",
    ),
    Reliance.on(
        "vllm.v1.sample.logits_processor.interface:BatchUpdate", "budgets", members="batch_size removed added moved"
    ),
    Reliance.on("vllm.config:VllmConfig", "budgets", members="reasoning_config"),
    Reliance.on(
        "vllm.v1.structured_output:StructuredOutputManager.grammar_bitmask",
        "grammars",
        parameters="self requests structured_output_request_ids scheduled_spec_decode_tokens",
    ),
    Reliance.on(
        "vllm.v1.structured_output.request:StructuredOutputRequest", "grammars", members="is_grammar_ready grammar"
    ),
    Reliance.on(
        "vllm.v1.request:Request",
        "grammars",
        members="from_engine_core_request append_output_token_ids",
        attributes="structured_output_request",
    ),
    Reliance.on("vllm.sampling_params:StructuredOutputsParams", "grammars", members="_backend _backend_was_auto"),
    Reliance.on(
        "vllm.sampling_params:SamplingParams", "constraints", members="bad_words bad_words_token_ids allowed_token_ids"
    ),
    Reliance.on(
        "vllm.v1.engine:EngineCoreRequest",
        "rehearsal call constraints grammars budgets",
        members="prompt_token_ids sampling_params reasoning_ended reasoning_parser_kwargs",
    ),
)

# Configuration

CONFIGURATION: Final = (
    Reliance.on(
        "vllm.config:VllmConfig",
        "worker startup head sampler runners/lifecycle runners/refused prefill constraints grammars weights",
        members="model_config parallel_config scheduler_config speculative_config lora_config load_config",
    ),
    Reliance.on(
        "vllm.config:ModelConfig",
        "worker head prefill startup constraints weights",
        members="model revision hf_config dtype max_model_len logprobs_mode skip_tokenizer_init get_hidden_size "
        "get_vocab_size "
        "get_diff_sampling_param try_get_generation_config",
    ),
    Reliance.on(
        "vllm.config:ParallelConfig",
        "worker startup head",
        members="tensor_parallel_size data_parallel_size data_parallel_size_local data_parallel_index "
        "data_parallel_hybrid_lb data_parallel_external_lb",
    ),
    Reliance.on(
        "vllm.config:VllmConfig", "mode", members="model_config parallel_config cache_config compilation_config"
    ),
    Reliance.on("vllm.config:ModelConfig", "mode", members="dtype quantization"),
    Reliance.on("vllm.config:ParallelConfig", "mode", members="tensor_parallel_size pipeline_parallel_size"),
    Reliance.on("vllm.config:CacheConfig", "mode", members="cache_dtype"),
    Reliance.on("vllm.config:CompilationConfig", "mode", members="mode cudagraph_mode"),
    Reliance.on("vllm.config:CompilationMode", "mode", members="NONE"),
    Reliance.on("vllm.config:SchedulerConfig", "worker prefill", members="max_num_seqs policy"),
    Reliance.on("vllm.config:LoadConfig", "weights", members="load_format download_dir"),
    Reliance.on("vllm.config:SpeculativeConfig", "worker", members="num_speculative_tokens"),
    Reliance.on(
        "vllm.config.speculative:",
        "runners/refused",
        texts="standard block synthetic",
    ),
    Reliance.on("vllm.config.speculative:SpeculativeConfig", "runners/refused", members="rejection_sample_method"),
    Reliance.on(
        "vllm.config:ModelConfig",
        "runners/refused",
        members="architectures is_diffusion logits_processors",
        attributes="runner_type",
    ),
    Reliance.on("vllm.v1.sample.logits_processor:", "runners/refused", texts="vllm.logits_processors"),
    Reliance.on(
        "vllm.models.deepseek_v41.nvidia.model:DeepseekV4Model",
        "runners/refused",
        attributes="decoder_replay_layers",
        without="no model trims its prefills",
    ),
    Reliance.on("vllm.config:VllmConfig", "sampler", members="watermark_config", without="there are no watermarks"),
)

# A worker's process

WORKER: Final = (
    Reliance.on("vllm:__version__", "worker proxy/doctor/engine"),
    Reliance.on("vllm._version:__version__", "version", without="`toploc --version` does not name vLLM's"),
    Reliance.on("vllm.triton_utils:HAS_TRITON", "plugin"),
    Reliance.on("vllm.platforms:current_platform", "serve/command serve/refusals plugin mode proxy/doctor/engine"),
    Reliance.on(
        "vllm.platforms.interface:Platform",
        "serve/command serve/refusals plugin mode proxy/doctor/engine",
        members="is_cpu device_type get_device_name import_kernels",
    ),
    Reliance.on("vllm.v1.worker.utils:AttentionGroup", "mode", members="backend"),
    Reliance.on("vllm.v1.attention.backend:AttentionBackend", "mode", members="get_name"),
    Reliance.on("vllm.distributed.parallel_state:get_pp_group", "runners/ranks"),
    Reliance.on("vllm.distributed.parallel_state:get_tp_group", "runners/ranks"),
    Reliance.on(
        "vllm.distributed.parallel_state:GroupCoordinator", "runners/ranks", attributes="is_last_rank rank_in_group"
    ),
    Reliance.on(
        "vllm.v1.core.sched.output:SchedulerOutput",
        "runners/requests runners/v1 runners/v2",
        members="scheduled_new_reqs finished_req_ids",
    ),
    Reliance.on(
        "vllm.v1.core.sched.output:NewRequestData",
        "runners/requests",
        members="req_id prompt_token_ids sampling_params",
    ),
)

# The output head, applied apart from the engine's steps

HEAD: Final = (
    Reliance.on("vllm.distributed:tensor_model_parallel_gather", "head", parameters="input_", keywords="dim"),
    Reliance.on("vllm.lora.layers:LogitsProcessorWithLoRA", "head", attributes="base_layer"),
    Reliance.on("vllm.lora.layers:VocabParallelEmbeddingWithLoRA", "head", attributes="base_layer"),
    Reliance.on(
        "vllm.model_executor.layers.logits_processor:LogitsProcessor",
        "head",
        attributes="logits_as_input org_vocab_size head_dtype",
    ),
    Reliance.on(
        "vllm.model_executor.layers.logits_processor:LogitsProcessor.forward",
        "head",
        parameters="self lm_head hidden_states embedding_bias",
    ),
    Reliance.on(
        "vllm.model_executor.layers.vocab_parallel_embedding:VocabParallelEmbedding",
        "head",
        attributes="quant_method tp_size",
    ),
    Reliance.on("vllm.model_executor.layers.vocab_parallel_embedding:UnquantizedEmbeddingMethod", "head"),
    Reliance.on("vllm.model_executor.layers.linear:UnquantizedLinearMethod", "head"),
    Reliance.on(
        "vllm.model_executor.models.interfaces_base:VllmModelForTextGeneration", "head", members="compute_logits"
    ),
    Reliance.on("vllm.lora.lora_model:LoRAModel", "head", attributes="loras"),
)

# Offline, without a server

OFFLINE: Final = (
    Reliance.on(
        "vllm.entrypoints.llm:LLM",
        "offline/llm",
        attributes="llm_engine runner_type model_config",
    ),
    Reliance.on(
        "vllm.v1.engine.llm_engine:LLMEngine",
        "offline/engine offline/llm",
        members="add_request step has_unfinished_requests get_num_unfinished_requests abort_request",
        attributes="engine_core vllm_config",
    ),
    Reliance.on(
        "vllm.v1.engine.llm_engine:LLMEngine",
        "offline/verification",
        members="get_supported_tasks",
        attributes="vllm_config renderer input_processor model_config",
    ),
    Reliance.on(
        "vllm.v1.engine.llm_engine:LLMEngine.add_request",
        "offline/engine",
        parameters="self request_id prompt params arrival_time lora_request",
    ),
    Reliance.on(
        "vllm.v1.engine.llm_engine:LLMEngine.abort_request", "offline/engine", parameters="self request_ids internal"
    ),
    Reliance.on("vllm.v1.engine.core_client:SyncMPClient", "offline/engine", attributes="outputs_queue"),
    Reliance.on("vllm.v1.engine.core_client:EngineCoreClient", "offline/llm", members="shutdown"),
    Reliance.on(
        "vllm.outputs:RequestOutput",
        "offline/calls offline/engine offline/rollout offline/verification",
        attributes="request_id outputs prompt_token_ids finished lora_request",
    ),
    Reliance.on(
        "vllm.lora.request:LoRARequest",
        "offline/calls offline/engine offline/rollout offline/verification",
        members="lora_name",
    ),
    Reliance.on(
        "vllm.sampling_params:SamplingParams",
        "offline/calls offline/engine offline/rollout offline/verification",
        members="n seed output_kind",
    ),
    Reliance.on(
        "vllm.sampling_params:RequestOutputKind", "offline/calls offline/verification", members="DELTA FINAL_ONLY"
    ),
    Reliance.on("vllm:__version__", "offline/llm"),
    Reliance.on("vllm.engine.arg_utils:EngineArgs", "offline/answers", members="from_cli_args"),
    Reliance.on("vllm.exceptions:VLLMValidationError", "offline/answers"),
    Reliance.on("vllm.sampling_params:SamplingParams", "offline/answers", members="from_optional"),
    Reliance.on("vllm.outputs:RequestOutput", "offline/answers", attributes="outputs prompt_token_ids"),
    Reliance.on("vllm.outputs:CompletionOutput", "offline/calls", members="index token_ids finish_reason"),
)

# What happens between steps

GPU_WORKER: Final = Reliance.on(
    "vllm.v1.worker.gpu_worker:Worker", "runners/changes", members="sleep wake_up reload_weights"
)
CHANGES: Final = (
    GPU_WORKER,
    Reliance.on("vllm.v1.worker.gpu_worker:Worker.sleep", "runners/changes", parameters="self level"),
    Reliance.on("vllm.v1.worker.gpu_worker:Worker.wake_up", "runners/changes", parameters="self tags"),
    Reliance.on(
        "vllm.v1.worker.gpu_worker:Worker",
        "runners/changes",
        members="start_weight_update update_weights finish_weight_update reset_weights",
        without="weights are not replaced by them",
    ),
    Reliance.on("vllm.v1.worker.gpu_worker:Worker", "runners/changes", attributes="model_runner"),
    Reliance.on("vllm.model_executor.models.llama:LlamaForCausalLM", "runners/changes", members="load_weights"),
)

# Model runner V1

V1_RUNNER: Final = Reliance.on(
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    "runners/v1",
    attributes="execute_model_state input_batch input_ids positions query_start_loc",
)
V1_BATCH: Final = Reliance.on(
    "vllm.v1.worker.gpu_input_batch:InputBatch", "runners/v1", attributes="num_computed_tokens_cpu num_reqs req_ids"
)
V1_SAMPLER: Final = Reliance.on(
    "vllm.v1.sample.sampler:Sampler", "sampler", attributes="topk_topp_sampler", without="tokens cannot be replayed"
)
RUNNER_V1: Final = (
    V1_RUNNER,
    V1_BATCH,
    Reliance.on(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
        "runners/lifecycle sampler mode",
        attributes="vllm_config device is_pooling_model model_memory_usage get_model sampler attn_groups",
    ),
    Reliance.on(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner.execute_model", "runners/v1", parameters="self scheduler_output"
    ),
    Reliance.on(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner.__init__", "runners/lifecycle", parameters="self vllm_config"
    ),
    Reliance.on("vllm.v1.worker.gpu_model_runner:GPUModelRunner.load_model", "runners/lifecycle", parameters="self"),
    Reliance.on(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner.initialize_kv_cache",
        "runners/lifecycle",
        parameters="self kv_cache_config",
    ),
    Reliance.on("vllm.v1.worker.gpu_model_runner:ExecuteModelState", "runners/v1", members="hidden_states"),
    Reliance.on("vllm.v1.utils:CpuGpuBuffer", "runners/v1", attributes="np gpu"),
    V1_SAMPLER,
    Reliance.on(
        "vllm.v1.sample.ops.topk_topp_sampler:TopKTopPSampler.forward_cpu",
        "sampler",
        parameters="self logits generators k p",
        without="tokens cannot be replayed",
    ),
    Reliance.on(
        "vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin", "runners/lifecycle", attributes="lora_manager"
    ),
    Reliance.on("vllm.lora.worker_manager:WorkerLoRAManager", "runners/lifecycle", attributes="_adapter_manager"),
    Reliance.on("vllm.lora.model_manager:LoRAModelManager", "runners/lifecycle", members="list_adapters"),
)

# Model runner V2

V2_RUNNER: Final = Reliance.on(
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner",
    "runners/lifecycle sampler mode",
    attributes="vllm_config device is_pooling_model model_memory_usage get_model sampler lora_manager attn_groups",
)
V2_SAMPLER: Final = Reliance.on(
    "vllm.v1.worker.gpu.sample.sampler:Sampler",
    "sampler",
    attributes="use_fp64_gumbel",
    without="tokens cannot be replayed",
)
RUNNER_V2: Final = (
    V2_RUNNER,
    Reliance.on(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.execute_model", "runners/v2", parameters="self scheduler_output"
    ),
    Reliance.on(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.sample",
        "runners/v2",
        parameters="self hidden_states input_batch grammar_output",
    ),
    Reliance.on(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.__init__", "runners/lifecycle", parameters="self vllm_config"
    ),
    Reliance.on("vllm.v1.worker.gpu.model_runner:GPUModelRunner.load_model", "runners/lifecycle", parameters="self"),
    Reliance.on(
        "vllm.v1.worker.gpu.model_runner:GPUModelRunner.initialize_kv_cache",
        "runners/lifecycle",
        parameters="self kv_cache_config",
    ),
    Reliance.on(
        "vllm.v1.worker.gpu.input_batch:InputBatch",
        "runners/v2",
        members="req_ids num_reqs query_start_loc_np num_computed_tokens_np input_ids positions",
    ),
    V2_SAMPLER,
    Reliance.on(
        "vllm.v1.worker.gpu.sample.gumbel:gumbel_sample",
        "sampler",
        parameters="logits expanded_idx_mapping temperature seed pos",
        keywords="apply_temperature",
        without="tokens cannot be replayed",
    ),
    Reliance.on(
        "vllm.v1.worker.gpu.sample.gumbel:gumbel_sample",
        "sampler",
        keywords="use_fp64 is_drafting",
        without="it is left out of the call",
    ),
)

# Not imported where it is not run.
EXPANSION: Final = Reliance.on(
    "vllm.v1.sample.rejection_sampler:expand_batch_to_tokens",
    "expansion",
    parameters="x cu_num_tokens num_tokens replace_from replace_to",
    without="sampled speculation is left as it is",
)
RUNNER_ON_CPUS: Final = (
    EXPANSION,
    Reliance.on(
        "vllm.v1.worker.cpu_model_runner:CPUModelRunner",
        "runners/v1 runners/lifecycle",
        attributes="execute_model load_model initialize_kv_cache",
    ),
)

API_SERVER: Final = (*COMMAND_LINE, *PLUGINS, *FRONT_END, *REQUESTS, *ROUTES, *REPLAY)
"""What `toploc serve` asks for before it starts; a process with a model runner asks for the rest."""

GROUPS: Final = {
    "Command line": COMMAND_LINE,
    "Plugins": PLUGINS,
    "The engine, as an API server sees it": FRONT_END,
    "Requests and answers": REQUESTS,
    "Routes, which render prompts": ROUTES,
    "Rehearsals, in which the engine's part is replayed": REPLAY,
    "Grammars, which answers are followed through": CONSTRAINTS,
    "Configuration": CONFIGURATION,
    "A worker's process": WORKER,
    "Output head": HEAD,
    "Offline, without a server": OFFLINE,
    "What happens between steps": CHANGES,
    "Model runner V1": RUNNER_V1,
    "Model runner V1 on CPUs": RUNNER_ON_CPUS,
    "Model runner V2": RUNNER_V2,
}
