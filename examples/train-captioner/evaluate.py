"""How many of the 500 held-out scenes are described exactly: `python evaluate.py --served DIR`.

`--served` asks openvino-genai with the exported folder, which is what counts; `--model` asks transformers with the
trained weights. Both decode greedily. `--report FILE` writes the figures and every failure as JSON, `--sheet FILE` a
picture of the first failures.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from grammar import held_out
from scenes import SIDE, Scene, evaluation_scenes

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

PROMPT = "Describe the scene."
LONGEST = 32  # tokens of an answer


@dataclass(frozen=True)
class Failure:
    """A scene that was described wrongly."""

    index: int
    category: str
    behind: str
    held_out: list[str]
    right: str
    answered: str


def torch_captions(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pictures: list[np.ndarray]
) -> list[str]:
    """What the trained weights say in transformers; pictures `(side, side, 3)` uint8 of the model's own size."""
    import torch

    from model import PATCHES, normalised
    from tokenizer import EOS, PAD, SPECIAL, rendered

    head = rendered(PROMPT).replace(SPECIAL[4], SPECIAL[4] * PATCHES)
    ids = tokenizer([head] * len(pictures), return_tensors="pt")["input_ids"]
    answers: list[str] = []
    for start in range(0, len(pictures), 100):
        pixels = normalised(torch.from_numpy(np.stack(pictures[start : start + 100])))
        mine = ids[start : start + 100]
        asked = {"input_ids": mine, "attention_mask": torch.ones_like(mine), "pixel_values": pixels}
        with torch.no_grad():
            out = model.generate(**asked, do_sample=False, max_new_tokens=LONGEST, pad_token_id=PAD, eos_token_id=EOS)
        answers += tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return answers


def served_captions(folder: Path, pictures: list[np.ndarray], prompt: str = PROMPT) -> list[str]:
    """What the exported folder says in openvino-genai; pictures `(height, width, 3)` uint8 of any size."""
    import openvino as ov
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1
    # Processors with bfloat16 would otherwise round where others do not.
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    config = genai.GenerationConfig(max_new_tokens=LONGEST, do_sample=False)
    config.eos_token_id = pipeline.get_tokenizer().get_eos_token_id()
    answers = []
    for number, pixels in enumerate(pictures):
        handle = pipeline.add_request(number, prompt, [ov.Tensor(pixels[None])], config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        answers.append(pipeline.get_tokenizer().decode(handle.read_all()[0].generated_ids))
    return answers


def failures(scenes: list[Scene], answers: list[str]) -> list[Failure]:
    """The scenes whose answer is not exactly their caption."""
    return [
        Failure(index, s.content.category, s.behind, held_out(s.content), s.caption, answer)
        for index, (s, answer) in enumerate(zip(scenes, answers, strict=True))
        if answer != s.caption
    ]


def figures(scenes: list[Scene], failed: list[Failure]) -> dict[str, str]:
    """Right of all: altogether, by category, by background, and by kind of held-out combination."""
    wrong = {failure.index for failure in failed}
    right, seen = Counter[str](), Counter[str]()
    for index, scene in enumerate(scenes):
        for group in ("all", scene.content.category, scene.behind, *kinds(scene)):
            seen[group] += 1
            right[group] += index not in wrong
    return {group: f"{right[group]}/{number}" for group, number in seen.items()}


def kinds(scene: Scene) -> set[str]:
    """Which kinds of held-out combinations a scene has: `held-out pair` and so on."""
    return {"held-out " + combination.partition(":")[0] for combination in held_out(scene.content)}


def sheet(scenes: list[Scene], failed: list[Failure], across: int = 4) -> Image.Image:
    """The failures with what is right above what was answered."""
    width, height, line = 260, 110, 11
    rows = -(-len(failed) // across)
    picture = Image.new("RGB", (across * width, rows * height), "white")
    pen = ImageDraw.Draw(picture)
    for place, failure in enumerate(failed):
        x, y = place % across * width, place // across * height
        picture.paste(Image.fromarray(scenes[failure.index].pixels), (x + 4, y + 6))
        for number, (colour, text) in enumerate((("green", failure.right), ("firebrick", failure.answered))):
            lines = wrap(text, 26)[:4]
            pen.multiline_text((x + 104, y + 4 + number * 5 * line), "\n".join(lines), fill=colour, spacing=1)
    return picture


def main() -> None:
    """Evaluate."""
    parser = argparse.ArgumentParser(description="Count exact captions of the 500 held-out scenes.")
    parser.add_argument("--served", type=Path, help="the exported folder, through openvino-genai")
    parser.add_argument("--model", type=Path, help="the trained weights, through transformers")
    parser.add_argument("--side", type=int, default=SIDE, help="draw the scenes in this size (--served only)")
    parser.add_argument("--strange", action="store_true", help="over photographs that training does not know")
    parser.add_argument("--report", type=Path, help="write figures and failures as JSON")
    parser.add_argument("--sheet", type=Path, help="write a picture of the first 24 failures")
    arguments = parser.parse_args()
    scenes = evaluation_scenes(arguments.side, strange=arguments.strange)
    pictures = [scene.pixels for scene in scenes]
    if arguments.served:
        answers = served_captions(arguments.served, pictures)
    else:
        from transformers import LlavaForConditionalGeneration

        from tokenizer import build_tokenizer

        answers = torch_captions(
            LlavaForConditionalGeneration.from_pretrained(arguments.model), build_tokenizer(), pictures
        )
    failed = failures(scenes, answers)
    for failure in failed:
        print(f"{failure.index:03} {failure.behind}: {failure.right!r} was described as {failure.answered!r}")
    print(json.dumps(figures(scenes, failed), indent=1))
    if arguments.report:
        report = {"figures": figures(scenes, failed), "failures": [asdict(failure) for failure in failed]}
        arguments.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.sheet:
        sheet(scenes, failed[:24]).save(arguments.sheet)


if __name__ == "__main__":
    main()
