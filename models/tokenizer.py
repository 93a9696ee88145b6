"""Trains the tokenizer on the corpus and saves it with the chat template.

    python -m models.tokenizer [DEST]

Byte-level BPE: any text survives encode and decode unchanged. Every digit is a token of its own, so that an
addition shows the model its columns.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .corpus import documents

HERE = Path(__file__).parent
DEST = HERE / "toploc-mini"
SEED = 1
DOCUMENTS = 30_000
VOCABULARY = 1024
CONTEXT = 2048
SPECIAL = ["<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
# Tokens of their own but not special, so that they stay in the decoded text, where tool parsers look for them.
MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def _texts() -> list[str]:
    """Every text once, so that rare names weigh as much as the additions that fill the corpus."""
    texts: list[str] = []
    for document in documents(DOCUMENTS, SEED):
        texts += [document.text] if document.text else [m["content"] for m in document.messages]
        texts += [json.dumps(tool) for tool in document.tools or []]
    return list(dict.fromkeys(texts))


def train() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    bpe.add_tokens(MARKS)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        chat_template=(HERE / "chat_template.jinja").read_text(),
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        padding_side="left",
    )


def main() -> None:
    dest = Path(sys.argv[1]) if len(sys.argv) > 1 else DEST
    tokenizer = train()
    tokenizer.save_pretrained(dest)
    print(f"{len(tokenizer)} tokens in {dest}")


if __name__ == "__main__":
    main()
