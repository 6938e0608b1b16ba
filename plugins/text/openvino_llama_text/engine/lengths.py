"""How many tokens a prompt has. What a picture becomes is only known once one of its size has been through the model.

openvino-genai encodes pictures when a request is added and tells their tokens when it has ended; what they become
depends on their size alone. Until then they count as many as any architecture would make of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from openvino_llama_text.engine.frames import Illustrated, Picture

__all__ = ["PromptLength", "PromptLengths"]

_MARK = re.compile(r"<ov_genai_image_\d+>")
_MOST, _PIXELS_PER_TOKEN = 4096, 600
"""Tiles of InternVL, MiniCPM-V, Phi and LLaVA-NeXT are at most so many tokens; a token of Qwen-VL is 28 x 28 pixels,
one of LFM2-VL and others more."""
_REMEMBERED = 4096

_Size = tuple[int, int]


class PromptLength(NamedTuple):
    """In tokens."""

    least: int
    most: int

    @property
    def is_known(self) -> bool:
        """Whether there is no doubt."""
        return self.least == self.most


class PromptLengths:
    """What is known of prompts' lengths."""

    def __init__(self, count: Callable[[str], int]) -> None:
        """``count`` tells how many tokens a text has."""
        self._count = count
        self._known: dict[_Size, int] = {}

    def of(self, prompt: bytes | Illustrated) -> PromptLength:
        """As far as it is known before the model has seen it."""
        if isinstance(prompt, bytes):
            return PromptLength(len(prompt) // 8, len(prompt) // 8)
        text = self._text(prompt)
        bounds = [self._bounds(picture) for picture in prompt.pictures]
        return PromptLength(text + sum(least for least, _ in bounds), text + sum(most for _, most in bounds))

    def learn(self, prompt: Illustrated, tokens: int) -> None:
        """A prompt has turned out to have so many; that says something if all its pictures are of one size."""
        sizes = {_size(each) for each in prompt.pictures}
        if len(sizes) == 1 and not sizes <= self._known.keys() and len(self._known) < _REMEMBERED:
            # Some architectures write a number or a line's end beside each: what is rounded up holds it.
            self._known[sizes.pop()] = -(-(tokens - self._text(prompt)) // len(prompt.pictures))

    def _text(self, prompt: Illustrated) -> int:
        return self._count(_MARK.sub("", prompt.text))

    def _bounds(self, picture: Picture) -> _Size:
        known = self._known.get(_size(picture))
        return (known, known) if known else (1, max(_MOST, picture.height * picture.width // _PIXELS_PER_TOKEN))


def _size(picture: Picture) -> _Size:
    return picture.height, picture.width
