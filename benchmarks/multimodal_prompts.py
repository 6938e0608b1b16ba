"""Questions for the benchmark of pictures: crops of one photograph, none like another, and a text to each."""

from __future__ import annotations

import io
import random
from typing import NamedTuple

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from benchmarks.text_prompts import prompts

__all__ = ["Question", "questions"]

_WIDTH, _HEIGHT = 320, 240


class Question(NamedTuple):
    """A picture and a text."""

    jpeg: bytes
    text: str

    def pixels(self) -> NDArray[np.uint8]:
        """The decoded picture, (1, height, width, 3)."""
        return np.asarray(Image.open(io.BytesIO(self.jpeg)).convert("RGB"))[np.newaxis]


def questions(count: int, seed: int) -> list[Question]:
    """So many questions; another seed gives others, so that no cache of beginnings helps."""
    astronaut: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    photograph = Image.fromarray(astronaut)
    texts = prompts(count, seed, words=8)
    return [Question(_crop(photograph, random.Random(f"{seed}-{number}")), texts[number]) for number in range(count)]


def _crop(photograph: Image.Image, chance: random.Random) -> bytes:
    left, top = chance.randrange(photograph.width - _WIDTH), chance.randrange(photograph.height - _HEIGHT)
    crop = photograph.crop((left, top, left + _WIDTH, top + _HEIGHT))
    file = io.BytesIO()
    crop.save(file, "JPEG", quality=90)
    return file.getvalue()
