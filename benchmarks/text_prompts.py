"""Prompts for the benchmarks of text: of one length in tokens or nearly so, none beginning like another."""

from __future__ import annotations

import random

__all__ = ["prompts", "texts"]

_WORDS = (
    "time", "people", "water", "light", "house", "river", "music", "paper", "stone", "green", "winter", "city",
    "train", "garden", "window", "mountain", "letter", "story", "market", "bridge", "silver", "morning", "summer",
    "table", "forest", "engine", "number", "planet", "history", "kitchen", "island", "feather",
)  # fmt: skip


def prompts(count: int, seed: int, words: int = 24) -> list[str]:
    """So many prompts; another seed gives others, so that no cache of beginnings helps."""
    return [" ".join(random.Random(f"{seed}-{number}").choices(_WORDS, k=words)) for number in range(count)]


def texts(count: int, seed: int) -> list[str]:
    """Texts of mixed length for embedding, 4 to 96 words."""
    lengths = random.Random(seed)
    return [
        prompts(1, seed * 100_003 + number, lengths.choice((4, 8, 8, 16, 16, 32, 64, 96)))[0] for number in range(count)
    ]
