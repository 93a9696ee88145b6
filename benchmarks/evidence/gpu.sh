#!/usr/bin/env bash
# gpu.sh SITE OUT SECONDS MODEL [MODEL ...]: the study of trained models on a machine with a GPU and without a network.
#
# SITE: a folder of packages, with vLLM for CUDA; torch, numba and transformers are the machine's own. MODEL: folders
# (`python -m models fetch`); what the first needs comes first. After SECONDS at most, OUT has at most 8 files of less
# than 16 MB: rows.jsonl.xz, the parts of others.tar.xz (evidence, texts and their scores, points of chunks; `cat
# others.tar.xz.* | tar -xJ`), and log.txt. While it runs, what there is goes there every two minutes. WORK
# (/tmp/toploc-evidence) keeps everything, and the same call goes on where the last one ended. MEMORY: gigabytes of the
# GPU that it may take (100). JOBS: at once (12).
set -uo pipefail
site=$1 out=$2 seconds=$3; shift 3
work=${WORK:-/tmp/toploc-evidence} root=$(cd "$(dirname "$0")/../.." && pwd) began=$SECONDS
mkdir -p "$work/results/evidence" "$out"
# The packages under their names, and the entry point by which vLLM finds ours: without building anything.
python3 - "$root" "$work/site" <<'P' || exit 1
import pathlib, shutil, sys, tomllib
root, site = map(pathlib.Path, sys.argv[1:])
project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
info.mkdir(parents=True, exist_ok=True)
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
groups = project["entry-points"].items()
lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
(info / "entry_points.txt").write_text("\n".join(lines) + "\n")
folders = {"toploc": "toploc", "toploc_proxy": "proxy", "toploc_client": "client", "toploc_gateway": "gateway"}
for package, folder in {**folders, "toploc/configs": "configs"}.items():
    shutil.rmtree(site / package, ignore_errors=True)
    shutil.copytree(root / folder, site / package)
P
export PYTHONPATH=$work/site:$site:$root PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 VLLM_USE_FLASHINFER_SAMPLER=0
export OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=4 TOKENIZERS_PARALLELISM=false

collect() {  # LEVEL: into OUT, each file whole or not at all
    local new=$work/collected; rm -rf "$new"; mkdir -p "$new"
    cp "$work/results/log.txt" "$new/" 2>/dev/null
    [ -e "$work/results/rows.jsonl" ] && xz -T8 "-$1" -c "$work/results/rows.jsonl" > "$new/rows.jsonl.xz"
    (cd "$work/results" && tar -cf - evidence/*.* tokens/*/*.md tokens/*/*.json tokens/*/*.yaml tokens/*/*.npz \
        points/*.npz 2>/dev/null) | xz -T8 "-$1" -c | split -b 15500000 -d -a 1 - "$new/others.tar.xz."
    rm -f "$new"/others.tar.xz.[4-9] "$out"/others.tar.xz.*
    mv "$new"/* "$out/"
}

python3 "$root/benchmarks/evidence/run.py" --out "$work/results" --work "$work" --seconds $((seconds - 30)) \
    --memory "${MEMORY:-100}" --jobs "${JOBS:-12}" ${SCALE:+--scale "$SCALE"} --models "$@" &
run=$!
next=$((began + 120))
while kill -0 $run 2>/dev/null; do
    sleep 1
    if [ $SECONDS -ge $next ]; then collect 0; next=$((SECONDS + 120)); fi
done
wait $run
collect 2
ls -l "$out"
