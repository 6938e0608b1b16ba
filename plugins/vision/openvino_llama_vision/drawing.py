"""Answers drawn over the picture, as a PNG. Knows only results, nothing of models."""

from __future__ import annotations

import colorsys
import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from openvino_llama_vision.results import Box, Classification, Detection, Region

__all__ = ["draw_classes", "draw_detections", "draw_regions", "png"]

_SMALLEST = 320
"""Pictures with a shorter long side are enlarged by a whole factor, so that labels can be read."""
_LARGEST_FACTOR = 16

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]


def png(image: Image.Image) -> bytes:
    """The picture as a file; compressed fast rather than well."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def draw_classes(picture: Image.Image, results: Sequence[Classification]) -> Image.Image:
    """The classes in the upper left corner, one below the other."""
    sheet = _Sheet(picture)
    y = 0
    for each in results:
        y = sheet.label((0, y), _caption(each.label, each.confidence), _colour(each.class_id))
    return sheet.image


def draw_detections(picture: Image.Image, results: Iterable[Detection]) -> Image.Image:
    """Boxes, their keypoints and labels."""
    sheet = _Sheet(picture)
    ordered = sorted(results, key=lambda each: each.confidence)  # the best ones on top
    for each in ordered:
        sheet.box(each.box, _colour(each.class_id))
        for point in each.keypoints:
            sheet.dot((point.x, point.y), _colour(each.class_id))
    for each in ordered:
        sheet.label_box(each.box, _caption(each.label, each.confidence), _colour(each.class_id))
    return sheet.image


def draw_regions(
    picture: Image.Image, classes: NDArray[Any], regions: Sequence[Region], background: int | None
) -> Image.Image:
    """The mask half transparent over the picture, outlines, and a label on the largest region of each class.

    Regions of a probability map, which have a confidence, are all of one class and get no label: text under it could
    not be read.
    """
    sheet = _Sheet(_tinted(picture, classes, background))
    for each in regions:
        sheet.outline(each.polygon, _colour(each.class_id))
    named: set[int] = set()
    for each in regions:  # the largest of each class bears its name
        if each.class_id not in named and each.confidence is None:
            named.add(each.class_id)
            sheet.label_box(each.box, each.label, _colour(each.class_id))
    return sheet.image


class _Sheet:
    """A picture to draw on, in coordinates of the picture that was sent."""

    def __init__(self, picture: Image.Image) -> None:
        self._factor = max(1, min(_LARGEST_FACTOR, _SMALLEST // max(picture.size)))
        size = (picture.width * self._factor, picture.height * self._factor)
        self.image = picture.convert("RGB").resize(size, Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self.image)
        middle = (size[0] * size[1]) ** 0.5
        self._line = max(2, round(middle / 250))
        self._font = _font(min(72, max(11, round(middle / 28))))

    def box(self, box: Box, colour: Colour) -> None:
        corners = [self._at((box.x, box.y)), self._at((box.x + box.width, box.y + box.height))]
        # A light edge inside of a dark one shows on any ground.
        self._draw.rectangle(corners, outline="black", width=self._line + 2)
        self._draw.rectangle(corners, outline=colour, width=self._line)

    def dot(self, point: tuple[float, float], colour: Colour) -> None:
        self._draw.circle(self._at(point), self._line + 1, fill=colour, outline="black")

    def outline(self, polygon: Sequence[tuple[float, float]], colour: Colour) -> None:
        if len(polygon) > 1:
            points = [self._at(point) for point in polygon]
            self._draw.line([*points, points[0]], fill=colour, width=self._line)

    def label_box(self, box: Box, text: str, colour: Colour) -> None:
        """A label above the box, or inside where there is no room."""
        x, y = self._at((box.x, box.y))
        height = self._height()
        self.label((x, y - height if y >= height else y), text, colour)

    def label(self, corner: tuple[float, float], text: str, colour: Colour) -> int:
        """A label with its upper left corner there, moved into the picture; the y below it."""
        text = self._shortened(text)
        width, height = round(self._draw.textlength(text, self._font)) + 8, self._height()
        x = int(max(0, min(corner[0], self.image.width - width)))
        y = int(max(0, min(corner[1], self.image.height - height)))
        self._draw.rectangle([x, y, x + width - 1, y + height - 1], fill=colour)
        self._draw.text((x + 4, y + 2), text, fill=_readable_on(colour), font=self._font)
        return y + height

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        return point[0] * self._factor, point[1] * self._factor

    def _height(self) -> int:
        return round(self._draw.textbbox((0, 0), "Ég", self._font)[3]) + 4

    def _shortened(self, text: str) -> str:
        room = self.image.width - 8
        if self._draw.textlength(text, self._font) <= room:
            return text
        while len(text) > 1 and self._draw.textlength(text + "...", self._font) > room:
            text = text[:-1]
        return text + "..."


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _caption(label: str, confidence: float) -> str:
    return f"{label} {confidence:.0%}"


def _colour(class_id: int) -> Colour:
    """A colour for each class; neighbours differ most (steps of the golden ratio around the wheel)."""
    red, green, blue = colorsys.hsv_to_rgb((0.33 + class_id * 0.618034) % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _readable_on(colour: Colour) -> str:
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def _tinted(picture: Image.Image, classes: NDArray[Any], background: int | None) -> Image.Image:
    tinted = picture.convert("RGB")
    for class_id in np.unique(classes).tolist():
        if class_id not in (background, -1):
            shade = Image.fromarray(np.where(classes == class_id, np.uint8(110), np.uint8(0)))
            tinted.paste(Image.new("RGB", tinted.size, _colour(class_id)), mask=shade)
    return tinted
