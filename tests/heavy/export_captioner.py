"""Writes ``tests/models/tiny-captioner`` and ``tiny-reader``: encoder-decoders of random weights, as optimum has them.

The one has a decoder of GPT-2's kind, as ViT-GPT2 has; the other one TrOCR's. What transformers makes of some pictures
stands beside each, in ``golden.json``. Run in an environment with torch, transformers, optimum-intel and scikit-image:
``python tests/heavy/export_captioner.py FOLDER``. Everything is seeded: the same tokens come out again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import skimage.data
import torch
from optimum.exporters.openvino import main_export
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

MODELS = Path(__file__).parent.parent / "models"
SIDE, POSITIONS, VOCABULARY, TOKENS = 32, 64, 300, 20
START, PAD, END = 0, 1, 2
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SPREAD = 0.5
"""Of the weights: far more than training begins with, so that pictures and tokens differ clearly."""
CORPUS = ["a cat sits on a mat", "a dog runs in the park", "two people ride a red bus", "an astronaut smiles"] * 5
PHOTOGRAPH, PROMPT = "astronaut", "a cat"
KEPT = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("openvino_encoder_model.*", "openvino_decoder_with_past_model.*", "exact.png", "golden.json"),
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<s>", pad_token="<pad>", eos_token="</s>")


def captioner() -> GPT2Config:
    """As in ViT-GPT2."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "tie_word_embeddings": False}
    return GPT2Config(vocab_size=VOCABULARY, add_cross_attention=True, initializer_range=SPREAD, **shape)


def reader() -> TrOCRConfig:
    """As in TrOCR; the decoders of Donut are exported alike."""
    shape = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64}
    places = {"max_position_embeddings": POSITIONS, "cross_attention_hidden_size": SHAPE["hidden_size"]}
    places |= {"tie_word_embeddings": False}
    return TrOCRConfig(vocab_size=VOCABULARY, is_decoder=True, init_std=SPREAD, **shape, **places)


def model(decoder: GPT2Config | TrOCRConfig) -> VisionEncoderDecoderModel:
    """Random weights, the same each time."""
    torch.manual_seed(0)
    encoder = ViTConfig(image_size=SIDE, patch_size=8, initializer_range=SPREAD, **SHAPE)
    ids = {"decoder_start_token_id": START, "pad_token_id": PAD, "eos_token_id": END}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids)
    made = VisionEncoderDecoderModel(config).eval()
    made.generation_config = GenerationConfig(max_new_tokens=TOKENS, **ids)
    return made


def pictures() -> dict[str, Image.Image]:
    """One of exactly the model's size, and a photograph that is larger."""
    photograph = Image.fromarray(getattr(skimage.data, PHOTOGRAPH)())
    return {"exact": photograph.crop((200, 80, 200 + SIDE, 80 + SIDE)), PHOTOGRAPH: photograph}


def golden(folder: Path) -> list[dict[str, Any]]:
    """The greedy tokens of transformers in float32 and their log-probabilities: of each picture, and after a prompt."""
    found, processor = VisionEncoderDecoderModel.from_pretrained(folder), ViTImageProcessorPil.from_pretrained(folder)
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    answers = []
    for name, picture in pictures().items():
        for prompt in ([START], [START, *words(PROMPT).input_ids]):
            pixels = processor(picture, return_tensors="pt")["pixel_values"]
            given = {"decoder_input_ids": torch.tensor([prompt]), "output_logits": True}
            output = found.generate(pixels, return_dict_in_generate=True, do_sample=False, **given)
            tokens = output.sequences[0, len(prompt) :].tolist()
            chosen = [step[0].log_softmax(0)[token].item() for token, step in zip(tokens, output.logits, strict=True)]
            logprobs = [round(each, 6) for each in chosen]
            answers.append({"picture": name, "prompt": prompt, "tokens": tokens, "logprobs": logprobs})
    return answers


def export(name: str, decoder: GPT2Config | TrOCRConfig, kept: Sequence[str], folder: Path) -> None:
    """One model with its processor in a folder of torch's kind, from there as OpenVINO has it, and what is kept."""
    source, made = folder / "source", folder / "export"
    for part in (model(decoder), tokenizer(), ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})):
        part.save_pretrained(source)
    main_export(str(source), made, task="image-to-text-with-past")
    shutil.copy(source / "preprocessor_config.json", made)  # optimum leaves it behind
    shutil.copy(source / "tokenizer.json", made)
    pictures()["exact"].save(made / "exact.png")
    (made / "golden.json").write_text(json.dumps(golden(source), indent=1) + "\n", "utf-8")
    (MODELS / name).mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in kept for path in made.glob(pattern)):
        shutil.copy(path, MODELS / name)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, help="where the models are made; what is kept of them is copied")
    parent = options.parse_args().folder
    export("tiny-captioner", captioner(), KEPT, parent / "captioner")
    export("tiny-reader", reader(), (*KEPT, "openvino_decoder_model.*"), parent / "reader")
