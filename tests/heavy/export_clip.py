"""Writes ``tests/models/tiny-clip`` and ``tiny-siglip``: dual encoders of random weights as optimum exports them, and
what transformers makes of a few pictures and texts with the same weights, in float32: ``golden.json``.

Needs torch, transformers, optimum-intel and scikit-image; run it as ``python tests/heavy/export_clip.py FOLDER``.
Everything is seeded: with the same versions of those, the same numbers come out again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import skimage.data
import torch
from optimum.exporters.openvino import main_export
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

MODELS = Path(__file__).parent.parent / "models"
SIDE = 32
TEXTS = [
    "a photo of a cat",
    "an astronaut in a suit, standing before a flag and the model of a rocket",
    "Coffee!",
    "red",
    " ".join(["the quick brown fox"] * 20),
]
CORPUS = [
    "a photo of a cat", "a picture of an astronaut", "a cup of coffee", "the quick brown fox jumps over the lazy dog",
    "a red car beside a green tree", "two dogs are playing in the snow", "an astronaut in a suit before a flag",
]  # fmt: skip
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = SHAPE | {"image_size": SIDE, "patch_size": 8}
KEPT = ("config.json", "openvino_model.*", "tokenizer*.json", "processor_config.json", "exact.png", "golden.json")


class TinyClip:
    """Pictures are cropped, texts have a mask, the texts' scores add up to 1."""

    name = "tiny-clip"
    padding = True

    def __init__(self) -> None:
        # Words are put together from their beginning. Training would find other merges each time: ties are broken by
        # the numbers of the letters at the ends of words, which depend on a hash.
        words = dict.fromkeys(f"{word}</w>" for text in CORPUS for word in text.split())
        letters = [re.findall(r".</w>|.", word) for word in words]
        merges = [("".join(each[:end]), each[end]) for each in letters for end in range(1, len(each))]
        merges = list(dict.fromkeys(merges))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        names = dict.fromkeys([*alphabet, *(f"{each}</w>" for each in alphabet), *map("".join, merges)])
        vocabulary = {name: place for place, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
        self.tokenizer = CLIPTokenizer(vocabulary, merges, model_max_length=77)
        self.pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})

    def model(self) -> CLIPModel:
        """Weights larger than those that training begins with: pictures and texts shall differ."""
        ids = {name: getattr(self.tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        text = SHAPE | {"vocab_size": len(self.tokenizer)} | ids
        return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16, initializer_factor=8.0))

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(0)


class TinySiglip:
    """Pictures are stretched, texts are padded to one length and have no mask, each text's score is its own."""

    name = "tiny-siglip"
    padding = "max_length"

    def __init__(self) -> None:
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
        )
        trained.train_from_iterator(CORPUS, trainer)
        trained.normalizer = normalizers.Lowercase()
        trained.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
        roles = {"eos_token": "</s>", "pad_token": "</s>", "model_max_length": 24}
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, **roles)
        self.pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})

    def model(self) -> SiglipModel:
        """With a scale and a bias as training would find them."""
        text = SHAPE | {"vocab_size": len(self.tokenizer), "max_position_embeddings": 24, "projection_size": 32}
        made = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
        torch.nn.init.constant_(made.logit_scale, 1.5)
        torch.nn.init.constant_(made.logit_bias, -0.75)
        return made

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()


Tiny = TinyClip | TinySiglip


def samples() -> dict[str, Image.Image]:
    """One of exactly the models' size, and photographs that are larger."""
    cat, astronaut = (Image.fromarray(getattr(skimage.data, name)()) for name in ("chelsea", "astronaut"))
    return {"exact": cat.crop((150, 80, 310, 240)).resize((SIDE, SIDE)), "chelsea": cat, "astronaut": astronaut}


def golden(tiny: Tiny, model: torch.nn.Module) -> dict[str, Any]:
    """What transformers makes of all texts and each picture."""
    texts = tiny.tokenizer(TEXTS, return_tensors="pt", padding=tiny.padding, truncation=True)
    tokens = [len(each) for each in tiny.tokenizer(TEXTS, truncation=True)["input_ids"]]
    answers: dict[str, Any] = {"texts": TEXTS, "tokens": tokens, "pictures": {}}
    names = ("input_ids", "attention_mask") if isinstance(tiny, TinyClip) else ("input_ids",)
    for name, picture in samples().items():
        inputs = tiny.pictures(images=picture, return_tensors="pt") | {each: texts[each] for each in names}
        with torch.no_grad():
            output = model(**inputs)
        scores = rounded(tiny.scores(output.logits_per_image[0]))
        answers["pictures"][name] = {"scores": scores, "embedding": rounded(output.image_embeds[0])}
        answers["text_embeds"] = rounded(output.text_embeds)
    return answers


def rounded(values: torch.Tensor) -> Any:
    return values.double().numpy().round(6).tolist()


def export(tiny: Tiny, folder: Path) -> None:
    """The model in a folder of torch's kind, from there as OpenVINO has it, and what of that is checked in."""
    torch.manual_seed(0)
    model, source, made = tiny.model().eval(), folder / "source", folder / "export"
    for part in (model, tiny.tokenizer, tiny.pictures):
        part.save_pretrained(source)
    main_export(str(source), made, task="zero-shot-image-classification", stateful=False)
    samples()["exact"].save(made / "exact.png")
    (made / "golden.json").write_text(json.dumps(golden(tiny, model)) + "\n", "utf-8")
    (MODELS / tiny.name).mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in KEPT for path in made.glob(pattern)):
        shutil.copy(path, MODELS / tiny.name)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, help="where the models are made; what is kept of them is copied")
    for each in (TinyClip(), TinySiglip()):
        export(each, options.parse_args().folder / each.name)
