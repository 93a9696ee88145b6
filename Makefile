# `make demo` and `make test` need Python 3.11 or later, pip and make; they build everything else themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SGLANG := .venv-sglang
SGLANG_READY := $(SGLANG)/.ready
FRAMEWORKS := .venv-frameworks
FRAMEWORKS_READY := $(FRAMEWORKS)/.ready
SOURCES := toploc proxy client gateway tests benchmarks examples models scripts

# Each server is four processes that import the same thousands of files: uncompiled ones take an engine's start from
# half a minute to more than one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint format twins test-sglang test-sglang-all test-frameworks test-gpu compat evidence fuzz soak clean

# MODEL=smollm2: with a real chat model, which is downloaded.
MODEL ?=
demo: $(READY)
	$(BIN)/python $(if $(MODEL),examples/demo_real.py $(MODEL),examples/demo.py)

# A server that starts imports for half a minute in one process after another, so two workers are nearly twice as fast
# on two cores. Each has servers of its own; at most 17 GB are taken.
TEST_WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations 25
test: $(READY) lint
	$(PYTEST)

# With the tests of what seldom changes, which start servers of their own. Before a release.
test-all: $(READY) lint
	$(PYTEST) -m "not gpu and not compat and not sglang"

# SGLang's requirements are not vLLM's, so it has an environment of its own, which sees what the first has.
test-sglang: $(SGLANG_READY)
	PYTHONPATH=tests/sglang/standins $(SGLANG)/bin/python -m pytest -m "sglang and not sglang_all" tests/sglang

test-sglang-all: $(SGLANG_READY)
	PYTHONPATH=tests/sglang/standins $(SGLANG)/bin/python -m pytest -m sglang tests/sglang

# Other people's frameworks in front of a server: Python ones in an environment of their own, JavaScript ones in
# build/node.
test-frameworks: $(READY) $(FRAMEWORKS_READY)
	$(BIN)/python -m pytest tests/engine/test_frameworks.py tests/engine/test_later.py \
	  tests/gateway/test_sdks.py tests/toploc/conformance/test_vectors.py

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	@mkdir -p build/types && ln -sfn ../../toploc build/types/toploc \
	  && ln -sfn ../../proxy build/types/toploc_proxy && ln -sfn ../../client build/types/toploc_client \
	  && ln -sfn ../../gateway build/types/toploc_gateway
	MYPYPATH=build/types $(BIN)/mypy
	$(BIN)/python scripts/synchronous.py --check

format: $(READY)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Synchronous modules, from the asynchronous ones.
twins: $(READY)
	$(BIN)/python scripts/synchronous.py

# For as long as it takes: FUZZ_SECONDS=600 by default.
FUZZ_SECONDS ?= 600
fuzz: $(READY)
	mkdir -p build/fuzz
	$(BIN)/python tests/fuzz/fuzz_proof.py -max_total_time=$(FUZZ_SECONDS) -max_len=800 -artifact_prefix=build/ build/fuzz

# Requests of every kind for so many seconds, and at least as many; the report is for benchmarks/soak, which says why
# glibc's threshold is fixed.
SOAK_REQUESTS ?= 20000
SOAK_SECONDS ?= 1800
soak: $(READY)
	MALLOC_MMAP_THRESHOLD_=131072 SOAK_REQUESTS=$(SOAK_REQUESTS) \
	  SOAK_SECONDS=$(SOAK_SECONDS) SOAK_LEAVING=0.1 SOAK_REPORT=benchmarks/soak/report.json \
	  $(BIN)/python -m pytest tests/engine/test_leaks.py --timeout 14400

# On a machine with a GPU, in an environment that has vLLM for it; goes on where it ended.
EVIDENCE_OUT ?= build/evidence
EVIDENCE_SECONDS ?= 3600
evidence:
	$(PYTHON) benchmarks/evidence/run.py --out $(EVIDENCE_OUT) --seconds $(EVIDENCE_SECONDS)

test-gpu:
	$(PYTHON) -m pytest -m gpu tests/gpu

# 2.5 GB of vLLM's wheels, one after another, of which 0.4 GB stay in build/compat. Then runs the newest version's Python
# files over the compiled part of the one that is installed.
compat: $(READY)
	$(BIN)/python tests/compat/compat.py
	$(BIN)/python tests/compat/sglang_versions.py
	$(BIN)/python -m pytest -m compat tests

clean:
	rm -rf $(VENV) $(SGLANG) $(FRAMEWORKS) build dist *.egg-info

# --no-deps: the engine's own requirements pull CUDA builds that break on a CPU build of torch, so the file is
# complete as it stands. --no-compile: what is used of eight million lines is compiled when it is imported.
$(READY): requirements/cpu.txt pyproject.toml
	@echo "Making the environment in $(VENV) (about 3.5 GB) …"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --no-deps --no-compile -r requirements/cpu.txt
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@

# In a second folder, since triton beside vLLM is another vLLM.
$(SGLANG_READY): $(READY) requirements/sglang-cpu.txt
	@echo "Making the environment in $(SGLANG) (about 1.2 GB) …"
	$(PYTHON) -m venv --without-pip $(SGLANG)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(SGLANG)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	$(BIN)/pip --python $(SGLANG)/bin/python install --no-deps --no-compile -r requirements/sglang-cpu.txt
	$(BIN)/pip --python $(SGLANG)/bin/python install --no-deps --no-build-isolation --editable .
	@touch $@

$(FRAMEWORKS_READY): requirements/frameworks.txt docs/examples/frameworks/package.json
	@echo "Making the environment in $(FRAMEWORKS) (about 0.8 GB) …"
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/pip install --no-deps --no-compile -r requirements/frameworks.txt
	$(FRAMEWORKS)/bin/pip install --no-deps --no-build-isolation --editable .
	mkdir -p build/node && cp docs/examples/frameworks/package.json build/node/
	npm install --silent --no-audit --no-fund --prefix build/node
	@touch $@
