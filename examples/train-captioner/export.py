"""Writes the trained model in optimum's layout, with weights in int8: `python export.py --model TRAINED --out DIR`.

The folder is what a LLaVA from a hub would be after `optimum-cli export openvino`: nothing in it is special to this
model, and nothing but openvino-genai or a server that knows LLaVA is needed to run it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration, LlavaProcessor

from model import MEAN, PATCH, STD
from scenes import SIDE
from tokenizer import SPECIAL, TEMPLATE, build_tokenizer


def processor() -> LlavaProcessor:
    """Tokenizer, chat template, and what CLIP does to pictures."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        resample=3,
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token=SPECIAL[4],
        num_additional_image_tokens=1,
    )


def export(trained: Path, out: Path) -> None:
    """Writes the folder that is served."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary)
        model = LlavaForConditionalGeneration.from_pretrained(trained, attn_implementation="sdpa")
        model.save_pretrained(whole)
        processor().save_pretrained(whole)
        command = ["optimum-cli", "export", "openvino", "--model", str(whole), "--task", "image-text-to-text"]
        subprocess.run([*command, "--weight-format", "int8", str(out)], check=True)  # noqa: S603 - the tool as its manual has it
    (out / "openvino_config.json").unlink(missing_ok=True)  # how it was quantised, and where on this machine
    settings = json.loads((out / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
    # openvino-genai reads the picture's settings from this older name.
    (out / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description="Export the trained captioner to OpenVINO.")
    parser.add_argument("--model", type=Path, required=True, help="the folder `model` that train.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export(arguments.model, arguments.out)


if __name__ == "__main__":
    main()
