"""`toploc generate`: answers of a model to the prompts of a data set, with their proofs, as evidence in a folder."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

from toploc.arguments import positive
from toploc.errors import ToplocError
from toploc.protocol import FIELD_NAME
from toploc.scheme import CHUNK_SIZE
from toploc.verifier.model_name import require_model

from .flags import add_flag, parse
from .folder import SAMPLE, Experiment, Manifest, load_llm
from .prompts import read_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .prompts import Messages

DESCRIPTION: Final = """\
Asks a model the first prompts of a data set and keeps requests, answers and proofs in
SAVE_DIR/MODEL/evidence.jsonl, which `toploc validate`, `toploc verify`, `toploc audit` and `toploc calibrate` read.
The flags are those of the original's script; underscores may be dashes. What is after -- are options of the engine, as
`toploc serve` has them.
"""

EPILOG: Final = """\
Stopped, the same call goes on. exit status: 0, or 2 where something is missing or wrong.

example:
  toploc generate --model_name models/toploc-mini --n_samples 8 --save_dir signatures --max_decode_tokens 64 \\
    --dataset_name toploc-questions -- --enforce-eager
"""

BATCHES: Final = 4
"""Times `--batch`, that the engine gets together: at their end it has fewer and fewer at once."""

ROUTES: Final = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
TIMEOUT: Final = 3600.0
"""Seconds for one answer, with its wait for a place in the batch."""
TAILS: Final = ((1, 1), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 32))
"""Rows of the last chunk under --vary_length, from and to: the shorter, the noisier, and the more of them are needed
for thresholds."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "toploc generate", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flag(made, "model_name", required=True, help="the model: its name on the hub or its folder")
    add_flag(made, "tp", type=positive, default=1, help="GPUs that share the model (default: 1)")
    add_flag(made, "n_samples", type=positive, default=4, help="prompts, the data set's first (default: 4)")
    add_flag(made, "save_dir", type=Path, default=Path("signatures"), help="(default: signatures)")
    add_flag(made, "max_decode_tokens", type=positive, default=512, help="tokens of an answer (default: 512)")
    add_flag(
        made,
        "dataset_name",
        default="stingning/ultrachat",
        help="on the Hugging Face hub, a .jsonl, .json or .parquet file, or our own toploc-questions "
        "(default: stingning/ultrachat)",
    )
    add_flag(made, "dtype", default="bfloat16", help="of weights and activations (default: bfloat16)")
    add_flag(made, "temperature", type=float, default=0.8, help="(default: 0.8)")
    add_flag(made, "top_p", type=float, default=0.95, help="(default: 0.95)")
    add_flag(
        made, "stop_at_eos", action="store_true", help="answers end where the model ends them; the original's do not"
    )
    add_flag(
        made,
        "vary_length",
        action="store_true",
        help="answers of fewer tokens, with last chunks of every length: what `toploc calibrate` needs",
    )
    add_flag(
        made,
        "route",
        choices=list(ROUTES),
        default="chat",
        help="completion: the prompt's text as it is, for models without a chat template (default: chat)",
    )
    add_flag(made, "weights", help="folder of weights to serve as --model_name, to try altered copies")
    add_flag(made, "base_url", help="of a running `toploc serve`, to ask it in place of loading the model")
    add_flag(made, "batch", type=positive, default=64, help="requests at once (default: 64)")
    return made


def main(arguments: Sequence[str]) -> int:
    """Exit status 0. Raises ToplocError for data sets, folders and servers that cannot be used."""
    args, serve = parse(parser(), arguments)
    if args.base_url and (args.weights or serve):
        raise ToplocError("--base_url: a running server has its own weights and options; leave out --weights and --")
    experiment = Experiment(args.save_dir, args.model_name)
    # In a folder that is there, other flags are what is wrong first.
    if args.base_url is None and not experiment.path.exists():
        require_model(args.weights or args.model_name, "--weights" if args.weights else "--model_name")
    prompts = read_prompts(args.dataset_name, args.n_samples)
    named = {name: getattr(args, name) for name in Manifest.model_fields if name not in ("version", "serve")}
    experiment.begin(Manifest(**named, serve=serve))
    done = {sample for sample, _ in experiment.answers()}
    left = [sample for sample in range(len(prompts)) if sample not in done]
    if left:
        bodies = {sample: request(args, sample, prompts[sample]) for sample in left}
        with tqdm(total=len(prompts), initial=len(prompts) - len(left), unit=" answers", disable=None) as bar:
            if args.base_url is None:
                _make(args, serve, bodies, experiment, bar)
            else:
                _ask(args.base_url, ROUTES[args.route], bodies, experiment, args.batch, bar)
    print(f"{experiment.evidence.path}: {len(prompts):,} answers")
    return 0


def request(args: argparse.Namespace, sample: int, messages: Messages) -> dict[str, Any]:
    """The body that asks the data set's prompt number `sample`."""
    body: dict[str, Any] = {
        "model": args.model_name,
        "max_tokens": length(sample, args.max_decode_tokens) if args.vary_length else args.max_decode_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "metadata": {SAMPLE: str(sample)},
    }
    if not args.stop_at_eos:
        body["ignore_eos"] = True
    if args.route == "chat":
        return {**body, "messages": messages}
    return {**body, "prompt": messages[-1]["content"]}


def length(sample: int, most: int) -> int:
    """Some whole chunks, fewer for most answers, and a last one."""
    random = Random(sample)  # noqa: S311
    tail = random.randint(*random.choice(TAILS))
    return min(CHUNK_SIZE * int((most // CHUNK_SIZE) * random.random() ** 2) + tail, most)


def _make(
    args: argparse.Namespace,
    serve: Sequence[str],
    bodies: Mapping[int, dict[str, Any]],
    experiment: Experiment,
    bar: tqdm[Any],
) -> None:
    """Has an engine of this process's own make the answers, and keeps each batch as it is done. Raises ToplocError."""
    from ..engines.vllm.offline.answers import answer

    with load_llm(args.weights or args.model_name, args.model_name, dtype=args.dtype, tp=args.tp, options=serve) as llm:
        every, size = list(bodies), BATCHES * args.batch
        for samples in (every[at : at + size] for at in range(0, len(every), size)):
            made = answer(llm, args.route, [bodies[sample] for sample in samples])
            for sample, response in zip(samples, made, strict=True):
                _keep(experiment, sample, bodies[sample], response)
                bar.update()


def _keep(experiment: Experiment, sample: int, body: dict[str, Any], response: dict[str, Any]) -> None:
    """Raises ToplocError for an answer without proofs."""
    proofs = response[FIELD_NAME]
    problems = [proofs, *proofs.get("choices", ())]
    if problem := next((entry["error"] for entry in problems if entry.get("error")), None):
        raise ToplocError(f"prompt {sample}: no proofs: {problem['code']}: {problem['message']}")
    experiment.evidence.append(body, response)


def _ask(
    url: str,
    route: str,
    bodies: Mapping[int, dict[str, Any]],
    experiment: Experiment,
    batch: int,
    bar: tqdm[Any],
) -> None:
    """Keeps each answer as it comes. Raises ToplocError for the first that has none, after those on their way."""
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=url.rstrip("/").removesuffix("/v1"), timeout=TIMEOUT, limits=limits) as http,
        ThreadPoolExecutor(batch) as pool,
    ):

        def ask(sample: int) -> None:
            try:
                response = http.post(route, json=bodies[sample])
            except httpx.HTTPError as error:
                raise ToplocError(f"prompt {sample}: {url} does not answer: {error or type(error).__name__}") from None
            if response.status_code != 200:
                hint = "; without a chat template: --route completion" if "chat template" in response.text else ""
                raise ToplocError(f"prompt {sample}: HTTP {response.status_code}: {response.text[:300]}{hint}")
            answer = response.json()
            if answer.get(FIELD_NAME) is None:
                raise ToplocError(f"{url}: answers carry no proofs; it is no `toploc serve`")
            _keep(experiment, sample, bodies[sample], answer)
            bar.update()

        tasks = [pool.submit(ask, sample) for sample in bodies]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
