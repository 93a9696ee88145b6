"""Small models with random weights that take images or audio: what tests of prompts with media are run on.

    python -m models.media KIND DEST

idefics3      a SigLIP tower and a Llama: an image is cut into tiles of 4 tokens each
paddleocr_vl  a SigLIP tower and an Ernie: an image has a token for each 28 x 28 pixels, and positions of three parts
qwen2_5_vl    a tower with windows and a Qwen2, for images and video; it needs torchvision
qwen2_audio   Whisper's encoder and a Qwen2, for audio of 16 kHz; vLLM needs soundfile to read it

All have the bundled model's tokenizer, with tokens of their own for media. Nothing that they say means anything.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
TOKENIZER = HERE / "toploc-mini"
WIDTH = 128
SPREAD = 0.15
"""Standard deviation of all weights. At the usual 0.02 random attention looks at everything alike, and no image would
change what is said."""


def _tokenizer(*marks: str, **named: str) -> PreTrainedTokenizerFast:
    made = AutoTokenizer.from_pretrained(TOKENIZER, extra_special_tokens=named)
    made.add_tokens(list(marks), special_tokens=True)
    return made


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": SPREAD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }


def _idefics3(dest: Path) -> PreTrainedModel:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = _tokenizer("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", *_tiles())
    images = Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template).save_pretrained(dest)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "initializer_range": SPREAD,
        },
        text_config={"model_type": "llama", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return Idefics3ForConditionalGeneration(config)


def _tiles() -> list[str]:
    return [f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)]


def _qwen2_5_vl(dest: Path) -> PreTrainedModel:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(*marks)
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 64})
    videos = Qwen2VLVideoProcessor(size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 64})
    processor = Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=tokenizer.chat_template)
    processor.save_pretrained(dest)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1],
            "initializer_range": SPREAD,
        },
        text_config={
            **_text(tokenizer),
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
            "rope_theta": 10000.0,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _paddleocr_vl(dest: Path) -> PreTrainedModel:
    from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration, PaddleOCRVLProcessor
    from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil

    marks = ["<|IMAGE_START|>", "<|IMAGE_END|>", "<|IMAGE_PLACEHOLDER|>"]
    tokenizer = _tokenizer(*marks, image_token=marks[2])
    start, end, image = tokenizer.convert_tokens_to_ids(marks)
    images = PaddleOCRVLImageProcessorPil(size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 64})
    PaddleOCRVLProcessor(images, tokenizer, chat_template=tokenizer.chat_template).save_pretrained(dest)
    config = PaddleOCRVLConfig(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "initializer_range": SPREAD,
        },
        text_config={
            **_text(tokenizer),
            "head_dim": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        },
        image_token_id=image,
        video_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    return PaddleOCRVLForConditionalGeneration(config)


def _qwen2_audio(dest: Path) -> PreTrainedModel:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    marks = ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]
    tokenizer = _tokenizer(*marks)
    features = WhisperFeatureExtractor(feature_size=32)
    Qwen2AudioProcessor(features, tokenizer, chat_template=tokenizer.chat_template).save_pretrained(dest)
    config = Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 32,
            "d_model": 64,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 128,
            "init_std": SPREAD,
        },
        text_config=_text(tokenizer),
        audio_token_index=tokenizer.convert_tokens_to_ids(marks[1]),
    )
    return Qwen2AudioForConditionalGeneration(config)


KINDS: dict[str, Callable[[Path], PreTrainedModel]] = {
    "idefics3": _idefics3,
    "paddleocr_vl": _paddleocr_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_audio": _qwen2_audio,
}


def make(kind: str, dest: Path | str) -> Path:
    """The model, written to `dest`."""
    dest = Path(dest)
    torch.manual_seed(0)
    model = KINDS[kind](dest)
    model.to(torch.bfloat16).save_pretrained(dest)
    if kind == "qwen2_audio":
        _rename(dest / "model.safetensors", "language_model.model.model.", "language_model.model.")
    return dest


def _rename(path: Path, before: str, after: str) -> None:
    """Tensors that transformers 5.19 saves under other names than Qwen2-Audio's checkpoints have, which vLLM reads."""
    tensors = load_file(path)
    save_file({name.replace(before, after): tensor for name, tensor in tensors.items()}, path, {"format": "pt"})


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: python -m models.media {'|'.join(KINDS)} DEST")
    print(make(*sys.argv[1:]))


if __name__ == "__main__":
    main()
