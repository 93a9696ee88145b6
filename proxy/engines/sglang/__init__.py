"""All that knows SGLang, under the names of `engines/vllm`. SGLang calls us in `plugin.py`, in every process that loads
plugins; `toploc sglang` and uvicorn's workers call `endpoint.py`.

From there: `startup.py`, `generate.py` and `early.py` in a process that serves HTTP, `runners/` and `worker.py` in a
scheduler, `prefill.py` and `rehearsal.py` for verifications. Nothing is imported here.
"""
