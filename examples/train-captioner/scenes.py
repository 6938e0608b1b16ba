"""Drawn scenes with their captions: an unlimited stream for training, 500 fixed ones for evaluation.

    python scenes.py --write DIR            the 500 evaluation scenes as PNG files, and captions.json
    python scenes.py --write DIR --side 384 the same scenes, larger

Needs numpy, Pillow and scikit-image only. No caption of the evaluation is one that training has seen (see `grammar`).
What lies behind the objects is drawn anew; pieces of photographs are cut out of those that training has its pieces of,
or, with `strange`, out of others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from backgrounds import KINDS, STRANGE_PHOTOGRAPHS, TRAINING_PHOTOGRAPHS, Kind, background
from drawing import colour_of, stamp
from grammar import Content, caption, held_out
from layout import Placed, choose_content, place

SIDE = 96  # pixels
EVALUATION_SEED = 2026
VALIDATION_SEED = 77
EVALUATION_COUNTS = {"one": 100, "count": 150, "two": 150, "three": 100}
NATIVE_SHARE = 0.92  # of the training scenes; the others are drawn larger and come to the model through its resizing
TRAINING_SHARES = {"one": 0.1, "count": 0.22, "two": 0.26, "three": 0.42}


@dataclass(frozen=True)
class Scene:
    """A picture and what is right to say of it."""

    pixels: np.ndarray  # (side, side, 3) uint8
    caption: str
    content: Content
    placed: tuple[Placed, ...]
    behind: Kind


def training_scenes(seed: int) -> Iterator[Scene]:
    """Scenes without end, none with a held-out combination."""
    rng = np.random.default_rng(seed)
    names, shares = list(TRAINING_SHARES), list(TRAINING_SHARES.values())
    while True:
        content = _content(rng, str(rng.choice(names, p=shares)), unseen=False)
        side = SIDE if rng.random() < NATIVE_SHARE else int(rng.integers(SIDE, 2 * SIDE + 1))
        yield draw(rng, content, KINDS[rng.choice(3, p=(0.3, 0.25, 0.45))], TRAINING_PHOTOGRAPHS, side)


def validation_scenes(number: int, *, unseen: bool) -> list[Scene]:
    """Fixed scenes to watch training by: over training's photographs, with or without held-out combinations."""
    rng = np.random.default_rng(VALIDATION_SEED + unseen)
    categories = list(EVALUATION_COUNTS)
    return [
        draw(rng, _content(rng, categories[i % 4], unseen=unseen), KINDS[i % 3], TRAINING_PHOTOGRAPHS)
        for i in range(number)
    ]


def evaluation_scenes(side: int = SIDE, *, strange: bool = False) -> list[Scene]:
    """The 500 scenes that the model is judged by; `strange` are over photographs that training does not know."""
    photographs = STRANGE_PHOTOGRAPHS if strange else TRAINING_PHOTOGRAPHS
    categories = [name for name, number in EVALUATION_COUNTS.items() for _ in range(number)]
    scenes = []
    for index, category in enumerate(categories):
        rng = np.random.default_rng((EVALUATION_SEED, index))
        content = _content(rng, category, unseen=True)
        scenes.append(draw(rng, content, KINDS[index % 3], photographs, side))
    return scenes


def draw(
    rng: np.random.Generator, content: Content, behind: Kind, photographs: tuple[str, ...], side: int = SIDE
) -> Scene:
    """A picture of the content; backgrounds are changed until every object stands out."""
    placed = place(rng, content)
    softness = float(rng.uniform(0.6, 1.6))
    stamps = [stamp(p, side, softness) for p in placed]
    shade = {thing: colour_of(rng, thing.colour) for thing in content.things}
    while True:
        pixels = background(rng, behind, photographs, side)
        if all(s.stands_out(pixels, shade[p.thing]) for p, s in zip(placed, stamps, strict=True)):
            break
    for p, s in zip(placed, stamps, strict=True):
        s.paint(pixels, shade[p.thing])
    return Scene((pixels * 255 + 0.5).astype(np.uint8), caption(content), content, tuple(placed), behind)


def write(folder: Path, side: int) -> None:
    """The evaluation scenes as `000.png` and so on, and `captions.json`: name, caption, category, what is behind."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, scene in enumerate(evaluation_scenes(side)):
        name = f"{index:03}.png"
        Image.fromarray(scene.pixels).save(folder / name)
        entries.append({
            "file": name, "caption": scene.caption, "category": scene.content.category,
            "behind": scene.behind, "held_out": held_out(scene.content),
        })  # fmt: skip
    (folder / "captions.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def _content(rng: np.random.Generator, category: str, *, unseen: bool) -> Content:
    while True:
        content = choose_content(rng, category)
        if bool(held_out(content)) == unseen:
            return content


def main() -> None:
    """Write the evaluation scenes."""
    parser = argparse.ArgumentParser(description="Write the 500 evaluation scenes.")
    parser.add_argument("--write", type=Path, required=True, metavar="DIR")
    parser.add_argument("--side", type=int, default=SIDE)
    arguments = parser.parse_args()
    write(arguments.write, arguments.side)


if __name__ == "__main__":
    main()
