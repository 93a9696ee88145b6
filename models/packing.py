"""Documents as rows of tokens for training."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from .corpus import Document

IGNORED = -100  # the label that transformers' loss leaves out


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of equal length. `owner` numbers the document of each token within its row, 0 where there is none."""

    tokens: torch.Tensor
    labels: torch.Tensor
    owner: torch.Tensor

    def to(self, device: str) -> "Rows":
        return Rows(self.tokens.to(device), self.labels.to(device), self.owner.to(device))

    def batch(self, rows: torch.Tensor, open_rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's arguments for some rows.

        A token sees its own document only, except in open rows, where it sees all that stands before it: there
        the model learns that <|bos|> starts anew, and gets used to distances longer than one document.
        """
        owner = self.owner[rows].long()
        seen = (owner[:, :, None] == owner[:, None, :]) | open_rows[:, None, None]
        return {
            "input_ids": self.tokens[rows].long(),
            "labels": self.labels[rows].long(),
            "attention_mask": seen.tril()[:, None],
        }


def render(tokenizer: PreTrainedTokenizerFast, document: Document) -> str:
    if document.text is not None:
        return document.text + str(tokenizer.eos_token)
    return str(tokenizer.apply_chat_template(document.messages, tools=document.tools, tokenize=False))


def _labels(ids: list[int], assistant: int, end: int) -> list[int]:
    """Answers with their end token are learned; of plain text, everything."""
    if assistant not in ids:
        return ids
    labels, inside = [], False
    for token in ids:
        labels.append(token if inside else IGNORED)
        inside = token == assistant or (inside and token != end)
    return labels


def pack(tokenizer: PreTrainedTokenizerFast, documents: Iterable[Document], length: int) -> Rows:
    """Fill rows with whole documents in the order they come; what is left of a row is padding."""
    assistant, end, pad = tokenizer.convert_tokens_to_ids(["<|assistant|>", "<|end|>", "<|pad|>"])
    texts = [render(tokenizer, d) for d in documents]
    tokens: list[list[int]] = []
    labels: list[list[int]] = []
    owner: list[list[int]] = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        if len(ids) > length:
            continue
        if not tokens or len(tokens[-1]) + len(ids) > length:
            tokens.append([])
            labels.append([])
            owner.append([])
        number = owner[-1][-1] + 1 if owner[-1] else 1
        tokens[-1] += ids
        labels[-1] += _labels(ids, assistant, end)
        owner[-1] += [number] * len(ids)

    def filled(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (length - len(row)) for row in rows], dtype=torch.int16)

    return Rows(filled(tokens, pad), filled(labels, IGNORED), filled(owner, 0))
