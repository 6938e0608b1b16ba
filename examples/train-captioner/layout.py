"""Which objects a scene shows and where they stand, all in fractions of the picture's side.

Relations keep clear margins: two related objects never touch along their relation's axis, and across it their centres
differ by less than a quarter of their distance, so that exactly one relation holds. Sizes keep margins too
(`RADII`). The layout knows nothing of pixels and nothing of backgrounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grammar import (
    COLOURS,
    HORIZONTAL,
    NUMBERS,
    SHAPES,
    SIZES,
    VERTICAL,
    Content,
    Relation,
    Size,
    Thing,
)

RADII: dict[Size, tuple[float, float]] = {"small": (0.095, 0.107), "normal": (0.15, 0.168)}
EDGE = 0.012  # between an object and the picture's edge
GAP = 0.035  # between two objects, at least
WIDEST_GAP = 0.26
SLANT = 0.22  # how far a relation may lean, as a share of the distance between the centres
DIRECTIONS: dict[Relation, tuple[int, int]] = {
    "above": (0, 1),
    "below": (0, -1),
    "left of": (1, 0),
    "right of": (-1, 0),
}


@dataclass(frozen=True)
class Placed:
    """One drawn object: its centre and radius as fractions of the picture's side, its turn in radians."""

    thing: Thing
    x: float
    y: float
    radius: float
    turn: float


def choose_content(rng: np.random.Generator, category: str) -> Content:
    """A random content of a category: `one`, `count`, `two` or `three`."""
    if category == "one":
        return Content(_thing(rng))
    if category == "count":
        thing = _thing(rng)
        return Content(thing, count=int(rng.integers(2, 2 + len(NUMBERS))))
    if category == "two":
        one, other = _different(rng, 2)
        return Content(one, related=(((VERTICAL[0], HORIZONTAL[0])[rng.integers(2)], other),))
    corner, upright, beside = _different(rng, 3)
    return Content(corner, related=((VERTICAL[rng.integers(2)], upright), (HORIZONTAL[rng.integers(2)], beside)))


def place(rng: np.random.Generator, content: Content) -> list[Placed]:
    """Where the objects stand: the subject first, then the related ones; retried until everything fits."""
    while True:
        placed = _scatter(rng, content) if not content.related else _relate(rng, content)
        if placed and all(_inside(p) for p in placed) and _apart(placed):
            return placed


def _thing(rng: np.random.Generator) -> Thing:
    size, colour, shape = (rng.integers(len(names)) for names in (SIZES, COLOURS, SHAPES))
    return Thing(SIZES[size], COLOURS[colour], SHAPES[shape])


def _different(rng: np.random.Generator, number: int) -> list[Thing]:
    """Things of which no two share both colour and shape."""
    things: list[Thing] = []
    while len(things) < number:
        thing = _thing(rng)
        if all((thing.colour, thing.shape) != (t.colour, t.shape) for t in things):
            things.append(thing)
    return things


def _placed(rng: np.random.Generator, thing: Thing, x: float, y: float) -> Placed:
    return Placed(thing, x, y, float(rng.uniform(*RADII[thing.size])), float(rng.uniform(-0.17, 0.17)))


def _scatter(rng: np.random.Generator, content: Content) -> list[Placed]:
    """Equal things anywhere, none touching another; an empty list if one found no room."""
    placed: list[Placed] = []
    for _ in range(content.count):
        for _ in range(30):
            radius = RADII[content.subject.size][1] + EDGE
            new = _placed(rng, content.subject, *rng.uniform(radius, 1 - radius, 2))
            if _apart([*placed, new]):
                placed.append(new)
                break
        else:
            return []
    return placed


def _relate(rng: np.random.Generator, content: Content) -> list[Placed]:
    """The subject anywhere, and each related thing from there in its direction."""
    subject = _placed(rng, content.subject, *rng.uniform(0.08, 0.92, 2))
    placed = [subject]
    for relation, thing in content.related:
        other = _placed(rng, thing, 0, 0)
        distance = subject.radius + other.radius + rng.uniform(GAP, WIDEST_GAP)
        lean = distance * rng.uniform(-SLANT, SLANT)
        across, down = DIRECTIONS[relation]
        x = subject.x + across * distance + (lean if down else 0)
        y = subject.y + down * distance + (lean if across else 0)
        placed.append(Placed(thing, x, y, other.radius, other.turn))
    return placed


def _inside(placed: Placed) -> bool:
    reach = placed.radius + EDGE
    return reach <= placed.x <= 1 - reach and reach <= placed.y <= 1 - reach


def _apart(placed: list[Placed]) -> bool:
    return all(
        np.hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius + GAP for i, a in enumerate(placed) for b in placed[:i]
    )
