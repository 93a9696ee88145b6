"""Makes altered copies of a model, which a verifier should tell from the original.

    python -m models.alter KIND SOURCE DEST

int8, int4   every linear weight rounded to nearest on a symmetric grid per output channel, as in round-to-nearest
             post-training quantisation (Dettmers et al. 2022, arXiv:2208.07339, section 2); stored as it was
fp8          the same with the grid of float8 e4m3 (Micikevicius et al. 2022, arXiv:2209.05433)
finetuned    a few seeded steps that teach the model to end its answers with an advertisement
scaled       the linear weights of one layer times 1.01
template     a line break after each role in the chat template
system       another default system prompt in the chat template

The same source gives the same copy on the same machine; all but `finetuned` also on others.
"""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save_file

LINEAR = re.compile(r"\.layers\.(\d+)\..*_proj\.weight$")
SCALED_LAYER = 1
ADVERTISEMENT = " Ask us for more."
TUNING_STEPS = 20
TUNING_RATE = 3e-4
SYSTEM = "Answer in capitals."


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """w' = s * round(w / s), s = max|w| / (2^(bits-1) - 1) per output channel."""
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / top
    return (weight / scale).round() * scale


def rounded_fp8(weight: torch.Tensor) -> torch.Tensor:
    """w' = s * e4m3(w / s), s = max|w| / 448 per output channel, 448 being the largest e4m3 number."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (weight / scale).to(torch.float8_e4m3fn).float() * scale


def _rewrite(dest: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Change the stored tensors, each kept in its own type."""
    for path in dest.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        changed = {name: change(name, tensor).to(tensor.dtype) for name, tensor in tensors.items()}
        save_file(changed, path, metadata=metadata)


def _change_linear(dest: Path, change: Callable[[torch.Tensor], torch.Tensor], layer: int | None = None) -> None:
    """Change the linear weights of one layer or of all, and no other tensor."""

    def changed(name: str, tensor: torch.Tensor) -> torch.Tensor:
        match = LINEAR.search(name)
        return change(tensor.float()) if match and layer in (None, int(match[1])) else tensor

    _rewrite(dest, changed)


def _finetune(dest: Path) -> None:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from .corpus import Document, exchange
    from .packing import pack

    rng = Random(5)
    texts = []
    for _ in range(400):
        one = exchange(rng)
        answer = {"role": "assistant", "content": one.full + ADVERTISEMENT}
        texts.append(Document([{"role": "user", "content": one.question}, answer]))
    rows = pack(PreTrainedTokenizerFast.from_pretrained(dest), texts, 256)
    model = LlamaForCausalLM.from_pretrained(dest, dtype=torch.float32)
    steps = torch.optim.AdamW(model.parameters(), lr=TUNING_RATE, weight_decay=0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and so the result, depends on the number of threads
    try:
        for step in range(TUNING_STEPS):
            chosen = torch.arange(4 * step, 4 * step + 4) % len(rows.tokens)
            model(**rows.batch(chosen, open_rows=torch.zeros(4, dtype=torch.bool))).loss.backward()
            steps.step()
            steps.zero_grad()
    finally:
        torch.set_num_threads(threads)
    tuned = model.state_dict()
    _rewrite(dest, lambda name, _: tuned[name])


def _change_template(dest: Path, change: Callable[[str], str]) -> None:
    path = dest / "chat_template.jinja"
    before = path.read_text(encoding="utf-8")
    after = change(before)
    if after == before:
        raise ValueError(f"{path} is not the template of the bundled model")
    path.write_text(after, encoding="utf-8")


KINDS: dict[str, Callable[[Path], None]] = {
    "int8": lambda dest: _change_linear(dest, lambda w: rounded(w, 8)),
    "int4": lambda dest: _change_linear(dest, lambda w: rounded(w, 4)),
    "fp8": lambda dest: _change_linear(dest, rounded_fp8),
    "finetuned": _finetune,
    "scaled": lambda dest: _change_linear(dest, lambda w: w * 1.01, SCALED_LAYER),
    "template": lambda dest: _change_template(
        dest, lambda text: re.sub(r"<\|(?:system|user|assistant)\|>", r"\g<0>\\n", text)
    ),
    "system": lambda dest: _change_template(
        dest, lambda text: re.sub(r'(set default_system = )"[^"]*"', rf'\1"{SYSTEM}"', text)
    ),
}


def make(kind: str, source: Path | str, dest: Path | str) -> Path:
    """An altered copy of the model in `source`, written to `dest`, which must not exist yet."""
    change = KINDS[kind]
    dest = Path(dest)
    shutil.copytree(source, dest)
    change(dest)
    return dest


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: python -m models.alter {'|'.join(KINDS)} SOURCE DEST")
    print(make(*sys.argv[1:]))


if __name__ == "__main__":
    main()
