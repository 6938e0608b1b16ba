"""What a scene may hold, the one right caption of each, and which combinations training never sees.

A caption is one of

    a red circle                                                    one object
    three small blue crosses                                        a count of equal objects
    a red circle above a blue square                                two objects
    a red circle above a blue square and left of a small cross      three objects, laid out as an L

The canonical order: of two objects the upper or the left one is named first. Of three, the object in the corner of the
L is named first, then the one above or below it, then the one left or right of it. Only a small object's size is
named.

The grammar knows nothing of pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Size = Literal["small", "normal"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "white", "black"]
Shape = Literal["circle", "square", "triangle", "cross"]
Relation = Literal["above", "below", "left of", "right of"]

SIZES: tuple[Size, ...] = ("small", "normal")
COLOURS: tuple[Colour, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "cross")
VERTICAL: tuple[Relation, ...] = ("above", "below")
HORIZONTAL: tuple[Relation, ...] = ("left of", "right of")
NUMBERS = {2: "two", 3: "three", 4: "four"}

RARE_PAIRS: frozenset[tuple[Colour, Shape]] = frozenset({
    ("red", "cross"), ("orange", "triangle"), ("yellow", "square"), ("green", "circle"),
    ("blue", "triangle"), ("purple", "cross"), ("white", "square"), ("black", "circle"),
})  # fmt: skip
RARE_COUNTS: frozenset[tuple[int, Shape]] = frozenset({
    (2, "cross"), (3, "triangle"), (4, "square"),
})  # fmt: skip
RARE_RELATIONS: frozenset[tuple[Shape, Relation, Shape]] = frozenset({
    ("circle", "above", "square"), ("cross", "below", "triangle"),
    ("triangle", "left of", "circle"), ("square", "right of", "cross"),
})  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """What is said of one object."""

    size: Size
    colour: Colour
    shape: Shape

    def words(self) -> str:
        """`small red circle`; the usual size is not named."""
        size = "small " if self.size == "small" else ""
        return f"{size}{self.colour} {self.shape}"

    def one(self) -> str:
        """`a small red circle`, `an orange square`."""
        words = self.words()
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Content:
    """What a scene shows: `count` equal things, or a thing and its relations to one or two others."""

    subject: Thing
    count: int = 1
    related: tuple[tuple[Relation, Thing], ...] = ()

    @property
    def things(self) -> tuple[Thing, ...]:
        """The different things, the subject first."""
        return (self.subject, *(thing for _, thing in self.related))

    @property
    def category(self) -> str:
        """`one`, `count`, `two` or `three`, as the evaluation groups scenes."""
        if self.count > 1:
            return "count"
        return ("one", "two", "three")[len(self.related)]


def caption(content: Content) -> str:
    """The one right caption."""
    if content.count > 1:
        plural = "es" if content.subject.shape == "cross" else "s"
        return f"{NUMBERS[content.count]} {content.subject.words()}{plural}"
    relations = " and ".join(f"{relation} {thing.one()}" for relation, thing in content.related)
    return f"{content.subject.one()} {relations}".rstrip()


def held_out(content: Content) -> list[str]:
    """The rare combinations in `content`, as `pair: red cross`, `count: 2 cross` or `relation: circle above square`, if
    training never sees this content; an empty list if it may.

    It never sees every other caption with such a combination: which ones, a checksum says.
    """
    rare = _rare(content)
    return rare if rare and zlib.crc32(caption(content).encode()) % 2 == 0 else []


def _rare(content: Content) -> list[str]:
    shape = content.subject.shape
    found = [f"pair: {t.colour} {t.shape}" for t in content.things if (t.colour, t.shape) in RARE_PAIRS]
    if (content.count, shape) in RARE_COUNTS:
        found.append(f"count: {content.count} {shape}")
    found += [
        f"relation: {shape} {relation} {thing.shape}"
        for relation, thing in content.related
        if (shape, relation, thing.shape) in RARE_RELATIONS
    ]
    return found


def held_out_neighbours(content: Content) -> list[str]:
    """The captions one word away from the right one that training never shows.

    Were they wrong answers like any other, training would teach that a scene is never so, which is not true but merely
    never shown. The loss leaves them out.
    """
    return [caption(other) for other in _neighbours(content) if other != content and held_out(other)]


def _neighbours(content: Content) -> Iterator[Content]:
    """Contents with one colour, shape, number or relation changed."""
    for place, thing in enumerate(content.things):
        changed = [replace(thing, colour=colour) for colour in COLOURS] + [replace(thing, shape=s) for s in SHAPES]
        for other in changed:
            if place == 0:
                yield replace(content, subject=other)
            else:
                yield _with_related(content, place - 1, content.related[place - 1][0], other)
    if content.count > 1:
        yield from (replace(content, count=number) for number in NUMBERS)
    for place, (_, thing) in enumerate(content.related):
        yield from (_with_related(content, place, relation, thing) for relation in (*VERTICAL, *HORIZONTAL))


def _with_related(content: Content, place: int, relation: Relation, thing: Thing) -> Content:
    related = list(content.related)
    related[place] = (relation, thing)
    return replace(content, related=tuple(related))
