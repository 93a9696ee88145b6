#!/usr/bin/env bash
# gpu.sh SITE OUT [tests] [cost] [across]: SGLang on one GPU (CUDA_VISIBLE_DEVICES), on a machine without a network.
#
# SITE: a folder of packages with SGLang, for the `python3` that has PyTorch. `across` also needs VLLM, a folder of
# packages with vLLM, and SMOLLM2, the folder of the model; both are variables. Each step has an end (SECONDS_OF_TESTS,
# SECONDS_OF_COST, SECONDS_OF_ACROSS), and a log in OUT that is written as it goes. OUT/engines.tgz has all the rest.
set -uo pipefail
site=$1 out=$2; shift 2
here=$(cd "$(dirname "$0")/../.." && pwd)
work=${WORK:-/tmp/engines} shape=${SHAPE:-/tmp/engines-shape}
mkdir -p "$out" "$work"
[ -e "$here/toploc/configs" ] || ln -s ../configs "$here/toploc/configs"

# This checkout as an installed package: both engines find plugins by their entry points.
links=$(mktemp -d)
for package in toploc:toploc toploc_proxy:proxy toploc_client:client toploc_gateway:gateway; do
    ln -s "$here/${package#*:}" "$links/${package%%:*}"
done
mkdir "$links/toploc_proxy-0.dist-info"
printf 'Metadata-Version: 2.1\nName: toploc-proxy\nVersion: 0\n' > "$links/toploc_proxy-0.dist-info/METADATA"
cat > "$links/toploc_proxy-0.dist-info/entry_points.txt" <<'POINTS'
[sglang.srt.plugins]
toploc = toploc_proxy.engines.sglang.plugin:register
[vllm.general_plugins]
toploc = toploc_proxy.engines.vllm.plugin:register
[vllm.endpoint_plugins]
toploc = toploc_proxy.engines.vllm.endpoint:ToplocEndpoint
POINTS
sglang=$links:$site:$here
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export SGLANG_IS_FLASHINFER_AVAILABLE=false TVM_FFI_CACHE_DIR=$site/.jit VLLM_USE_FLASHINFER_SAMPLER=0
# SGLang's kernels are linked with the toolkit's library, which nvcc's own place may not lead to.
for folder in /usr/local/cuda /usr/local/cuda-13*; do
    [ -e "$folder/lib64/libcudart.so" ] && export CUDA_HOME=${CUDA_HOME:-$folder}
done
cd "$here" || exit 1

# within SECONDS COMMAND...: marked, so that servers that outlive it can be found.
within() { ENGINES_STEP=$$ timeout -s INT -k 25 "$@"; }
sweep() {
    for environ in /proc/[0-9]*/environ; do
        if tr '\0' '\n' 2>/dev/null < "$environ" | grep -qx "ENGINES_STEP=$$"; then
            kill -9 "$(basename "$(dirname "$environ")")" 2>/dev/null
        fi
    done
    tar -C "$work" --exclude='weights-*' --exclude='*.pt' -czf "$out/engines.tgz" . 2>/dev/null
}

tests() {
    export SGLANG_TEST_LOGS=$work
    local running engines engine
    for engines in "decode-graphs all-graphs eager-chunks few-graphs" "fp8-weights e4m3-cache e5m2-cache"; do
        running=()
        for engine in $engines; do
            PYTHONPATH=$sglang within "${SECONDS_OF_TESTS:-170}" python3 -m pytest -m gpu -k "$engine" \
                tests/gpu/test_sglang.py -q -s -W ignore -p no:cacheprovider -p no:benchmark -p no:xdist --tb short \
                --basetemp "$(mktemp -d)/base" 2>&1 | sed -u "s/^/$engine: /" >> "$out/tests.log" &
            running+=($!)
        done
        wait "${running[@]}"
        sweep
    done
    grep -hE "at once, by|by itself|: (FAILED|ERROR) |[0-9]+ (passed|failed|errors?)" "$out/tests.log" | cut -c1-250
    grep -hE "^[a-z0-9-]*: E  " "$out/tests.log" | awk '!seen[$0]++' | cut -c1-400 | head -40
}

cost() {
    local folder; folder=$(mktemp -d)
    PYTHONPATH=$sglang python3 benchmarks/serving/shape.py "$folder" &&
        PYTHONPATH=$sglang within $((${SECONDS_OF_COST:-200} + 60)) python3 benchmarks/engines/cost.py "$folder" \
            --seconds "${SECONDS_OF_COST:-200}" --out "$work/cost.json" -- \
            --load-format dummy --attention-backend triton --sampling-backend pytorch --mem-fraction-static 0.8 \
            --max-total-tokens 131072 --max-running-requests 256 --cuda-graph-backend-prefill disabled \
            > "$out/cost.log" 2>&1
    sweep
    tail -30 "$out/cost.log"
}

# Random weights of Llama-3.1-8B's shape, 16 GB, of which LAYERS may be fewer than 32.
weights() { PYTHONPATH=$sglang python3 benchmarks/evidence/shape.py "$shape" 4096 "${LAYERS:-32}" > "$work/weights.log" 2>&1; }

across() {
    local seconds=${SECONDS_OF_ACROSS:-270}
    wait "${writing:-}" 2>/dev/null
    one() {
        local name=$1 model=$2; shift 2
        PYTHONPATH=$links:$VLLM:$here within $((seconds + 60)) python3 benchmarks/engines/run.py "$work/$name" --gpu \
            --sglang-path "$sglang" --model "$model" --name "$name" --seconds "$seconds" "$@" > "$out/across-$name.log" 2>&1
    }
    one llama-3.1-8b-shape "$shape" --answers 100 &
    one smollm2-135m-instruct "$SMOLLM2" --answers 500 --copies int8 fp8 int4 --copied-answers 100 &
    wait
    sweep
    cut -c1-600 "$out"/across-*.log | tail -90
}

if [[ " $* " == *" across "* ]] || [ "${KEEP_WEIGHTS:-}" ]; then weights & writing=$!; fi
for step in "$@"; do
    echo "== $step, $(date +%T)"
    "$step"
done
wait
echo "== done, $(date +%T)"
