"""What the bundled model gets right, greedily, in bf16.

    python -m models.evaluate [MODEL]

The additions are those of heldout.py, which occur nowhere in the training text. The facts of the other kinds do
occur there, since nothing else could teach them; wordings and orders are drawn anew.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .heldout import held_out_pairs
from .lists import LISTS
from .tasks import calendar, capital, comparison, country, product, subtraction
from .tokenizer import DEST
from .wordings import Exchange

SEED = 3
SAMPLE = 200
KINDS: dict[str, Callable[[Random], Exchange]] = {
    "subtractions": subtraction,
    "products": product,
    "comparisons": comparison,
    "capitals": capital,
    "countries": country,
    "days and months": calendar,
    "lists and tables": lambda rng: rng.choice(LISTS[:-2])(rng),
}


class Answerer:
    """Greedy answers, many at once."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        self.model = LlamaForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(device).eval()
        self.device = device

    def ask(self, questions: list[str], system: str | None = None, max_new_tokens: int = 300) -> list[str]:
        head = [] if system is None else [{"role": "system", "content": system}]
        prompts = [
            self.tokenizer.apply_chat_template(
                [*head, {"role": "user", "content": q}], tokenize=False, add_generation_prompt=True
            )
            for q in questions
        ]
        batch = self.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        batch = batch.to(self.device)
        with torch.inference_mode():
            out = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        return self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def last_number(text: str) -> int | None:
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None


def is_right(answer: str, exchange: Exchange) -> bool:
    """The last number counts where the answer is one; else the short answer must occur word for word."""
    brief = exchange.brief.rstrip(".")
    return last_number(answer) == int(brief) if brief.isdigit() else brief in answer


def additions(model: Answerer, pairs: list[tuple[int, int]], system: str | None = None) -> int:
    """How many of the pairs the model adds rightly."""
    answers = model.ask([f"What is {a} + {b}?" for a, b in pairs], system, max_new_tokens=40)
    return sum(last_number(answer) == a + b for answer, (a, b) in zip(answers, pairs, strict=True))


def _line(name: str, right: int, of: int) -> str:
    return f"{name}: {right}/{of} = {100 * right / of:.1f} %"


def report(path: Path, device: str = "cpu") -> str:
    model = Answerer(path, device)
    pairs = held_out_pairs()
    lines = [_line("held-out additions", additions(model, pairs), len(pairs))]
    briefly = model.ask([f"What is {a} + {b}?" for a, b in pairs], "Answer briefly.", 40)
    right = sum(answer == f"{a + b}." for answer, (a, b) in zip(briefly, pairs, strict=True))
    lines.append(_line('held-out additions under "Answer briefly.", word for word', right, len(pairs)))
    rng = Random(SEED)
    for name, kind in KINDS.items():
        asked = [kind(rng) for _ in range(SAMPLE)]
        answers = model.ask([e.question for e in asked])
        lines.append(_line(name, sum(map(is_right, answers, asked)), SAMPLE))
    asked = [rng.choice([capital, calendar])(rng) for _ in range(SAMPLE)]
    shouted = model.ask([e.question for e in asked], "Answer in capitals.")
    right = sum(a == a.upper() and e.brief.rstrip(".").upper() in a for a, e in zip(shouted, asked, strict=True))
    lines.append(_line('right and in capitals under "Answer in capitals."', right, SAMPLE))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else DEST), end="")
