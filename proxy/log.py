"""The package's logger, below vLLM's, which is the only tree that vLLM's logging configuration covers."""

import logging

logger = logging.getLogger("vllm.toploc")
