"""Batches for training, drawn by worker processes while the model trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from drawing import stamp
from grammar import COLOURS, SHAPES, SIZES, Content, caption, held_out_neighbours
from model import IGNORED, PATCH, PATCHES
from scenes import SIDE, Scene, training_scenes
from tokenizer import EOS, IMAGE, PAD, PROMPTS, SPECIAL, build_tokenizer, rendered

COVERED, BARE = 0.25, 0.03  # shares of a patch: more is an object's, less is the background's, between is not asked
ODD_PROMPTS = 0.12  # share of prompts of random letters, so that the answer hangs on no wording

Batch = dict[str, torch.Tensor]


class SceneBatches(IterableDataset[Batch]):  # type: ignore[misc]
    """Batches without end; each worker draws from a seed of its own."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        seed = self.seed * 1000 + (worker.id if worker else 0)
        scenes, texts = training_scenes(seed), Texts(seed)
        while True:
            yield collate(list(islice(scenes, self.size)), texts)


def loader(seed: int, size: int) -> Iterator[Batch]:
    """Batches from a worker process of low priority."""
    return iter(DataLoader(
        SceneBatches(seed, size), batch_size=None, num_workers=1, prefetch_factor=8,
        worker_init_fn=_be_nice, multiprocessing_context="fork",
    ))  # fmt: skip


class Texts:
    """Prompts and captions as tokens."""

    def __init__(self, seed: int) -> None:
        self.fast = build_tokenizer().backend_tokenizer
        self.rng = np.random.default_rng(seed)

    def prompt(self) -> str:
        """One of `PROMPTS`, now and then random letters."""
        if self.rng.random() < ODD_PROMPTS:
            return "".join(self.rng.choice(list("abcdefghilmnoprstuvw   ?.,ABDW"), self.rng.integers(1, 14)))
        return PROMPTS[self.rng.integers(len(PROMPTS))]

    def encode(self, contents: list[Content]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids and labels, `(batch, sequence)`, padded on the right; labels are the next caption token of each place.
        And `(n, 3)`: row, place and token of what is neither right nor wrong there (see `held_out_neighbours`).
        """
        heads, tails = [], []
        for content in contents:
            heads.append(self.tokens(rendered(self.prompt()).replace(SPECIAL[IMAGE], SPECIAL[IMAGE] * PATCHES)))
            tails.append([*self.tokens(caption(content)), EOS])
        length = max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)) - 1
        ids = torch.full((len(contents), length), PAD)
        labels = torch.full((len(contents), length), IGNORED)
        open_questions = []
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            whole = torch.tensor(head + tail)
            ids[row, : len(whole) - 1] = whole[:-1]
            labels[row, len(head) - 1 : len(whole) - 1] = whole[len(head) :]
            for other in held_out_neighbours(contents[row]):
                place, token = first_difference(tail, self.tokens(other))
                open_questions.append((row, len(head) - 1 + place, token))
        return ids, labels, torch.tensor(open_questions).reshape(-1, 3)

    def tokens(self, text: str) -> list[int]:
        """The text's tokens."""
        return list(self.fast.encode(text).ids)


def first_difference(right: list[int], other: list[int]) -> tuple[int, int]:
    """Where two captions part, and how the other goes on there."""
    return next((i, b) for i, (a, b) in enumerate(zip(right, other, strict=False)) if a != b)


def collate(scenes: list[Scene], texts: Texts) -> Batch:
    """Scenes as a batch: pixels, patch targets, ids and labels."""
    ids, labels, open_questions = texts.encode([scene.content for scene in scenes])
    return {
        "pixels": torch.from_numpy(np.stack([fit(scene.pixels) for scene in scenes])),
        "targets": torch.from_numpy(np.stack([patch_targets(scene) for scene in scenes])),
        "ids": ids,
        "labels": labels,
        "open": open_questions,
    }


def fit(pixels: np.ndarray) -> np.ndarray:
    """The picture in the model's size, resized as the preprocessing does it."""
    if pixels.shape[0] == SIDE:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def patch_targets(scene: Scene) -> np.ndarray:
    """What each patch shows, `(patches, 6)` int64: see `DenseHeads`. Patches that are partly covered have no target."""
    across = SIDE // PATCH
    covers = np.stack(
        [stamp(p, SIDE).whole(SIDE).reshape(across, PATCH, across, PATCH).mean((1, 3)) for p in scene.placed]
    )
    targets = np.full((across, across, 6), IGNORED)
    targets[covers.max(0) < BARE, 0] = 0
    for number, (placed, cover) in enumerate(zip(scene.placed, covers, strict=True)):
        thing = placed.thing
        place = number if scene.content.related else 0
        mine = (cover > COVERED) & (cover == covers.max(0))
        centre = int(placed.y * across), int(placed.x * across)
        mine[centre] = True
        targets[mine] = (
            1 + SHAPES.index(thing.shape), COLOURS.index(thing.colour), SIZES.index(thing.size), place,
            scene.content.count - 1, 0,
        )  # fmt: skip
        targets[(*centre, 5)] = 1
    return targets.reshape(PATCHES, 6)


def _be_nice(_: int) -> None:
    os.nice(10)
    torch.set_num_threads(1)
