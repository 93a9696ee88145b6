#!/usr/bin/env bash
# gpu.sh SITE OUT [tests|cost]: SGLang on one GPU, from a folder of packages, SITE, on a machine without a network. It
# tests proofs of every kind of graph, and measures what they cost. What comes of it is in OUT.
set -uo pipefail
site=$1 out=$2 what=${3:-both}
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
# This checkout as an installed package: SGLang finds plugins by their entry points.
for package in toploc:toploc toploc_proxy:proxy toploc_client:client toploc_gateway:gateway; do
    ln -sfn "$here/${package#*:}" "$site/${package%%:*}"
done
info=$site/toploc_proxy-0.dist-info
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: toploc-proxy\nVersion: 0\n' > "$info/METADATA"
printf '[sglang.srt.plugins]\ntoploc = toploc_proxy.engines.sglang.plugin:register\n' > "$info/entry_points.txt"
export PYTHONPATH=$site:$here HF_HUB_OFFLINE=1 SGLANG_IS_FLASHINFER_AVAILABLE=false TVM_FFI_CACHE_DIR=$site/.jit
export PYTHONUNBUFFERED=1
cd "$here" || exit 1
status=0
if [ "$what" != cost ]; then
    python3 -m pytest -m gpu tests/gpu/test_sglang.py -q -s -p no:cacheprovider 2>&1 | tee "$out/tests.log" || status=1
fi
if [ "$what" != tests ]; then
    shape=$(mktemp -d)
    python3 benchmarks/serving/shape.py "$shape" &&
        python3 benchmarks/engines/cost.py "$shape" --seconds "${SECONDS_OF_COST:-240}" --out "$out/cost.json" -- \
            --load-format dummy --attention-backend triton --sampling-backend pytorch --mem-fraction-static 0.42 \
            --max-running-requests 256 --cuda-graph-backend-prefill disabled 2>&1 | tee "$out/cost.log" || status=1
fi
exit $status
