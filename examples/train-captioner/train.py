"""Trains the captioner from nothing, on two CPU cores: `python train.py --out checkpoints/captioner`.

Two stages: the vision encoder and the projector on what each patch shows, then everything together on captions. Each
core computes its half of every batch in a process of its own, and the gradients are averaged: on two cores that is
faster than two threads in one process.

Progress goes to the standard output; a checkpoint is written every two minutes, and `--resume` goes on from it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.optim.lr_scheduler import LambdaLR

from batches import Batch, Texts, collate, loader
from evaluate import torch_captions
from model import DenseHeads, build_model, caption_loss, image_features
from scenes import validation_scenes
from tokenizer import build_tokenizer

BATCH = 32  # of each process
DENSE_WEIGHT = 0.5  # of the dense loss beside the captions'
CHECKPOINT_SECONDS = 120


@dataclass(frozen=True)
class Stage:
    """A part of training: how many steps, how fast, and whether captions are learnt."""

    name: str
    steps: int
    rate: float
    captions: bool


class Training:
    """Model, optimizer and where training stands."""

    def __init__(self, stages: list[Stage], seed: int) -> None:
        torch.manual_seed(seed)
        self.stages, self.seed = stages, seed
        self.model, self.heads = build_model(), DenseHeads()
        self.stage, self.step, self.seconds = 0, 0, 0.0
        self.enter()

    def enter(self) -> None:
        """Begins the present stage: a new optimizer and its schedule."""
        stage = self.stages[self.stage]
        self.optimizers = optimizers([self.model, self.heads], stage.rate)
        self.schedules = [LambdaLR(optimizer, schedule(stage.steps)) for optimizer in self.optimizers]

    def next_stage(self) -> None:
        """Goes on to the next stage, if there is one."""
        self.stage, self.step = self.stage + 1, 0
        if self.stage < len(self.stages):
            self.enter()

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of the present stage."""
        features = image_features(self.model, batch["pixels"])
        dense = self.heads(features, batch["targets"])
        if not self.stages[self.stage].captions:
            return dense
        return caption_loss(self.model, features, batch) + DENSE_WEIGHT * dense

    def learn(self, batch: Batch) -> float:
        """One step; the loss."""
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(batch)
        loss.backward()
        parameters = [p for p in (*self.model.parameters(), *self.heads.parameters()) if p.grad is not None]
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, plan in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            plan.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def save(self, folder: Path) -> None:
        """A checkpoint, written beside the old one and moved over it."""
        state = {
            "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "schedules": [s.state_dict() for s in self.schedules],
            "at": (self.stage, self.step, self.seconds),
        }  # fmt: skip
        torch.save(state, folder / "checkpoint.new")
        (folder / "checkpoint.new").replace(folder / "checkpoint.pt")

    def load(self, folder: Path) -> None:
        """Goes on from the checkpoint."""
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        self.stage, self.step, self.seconds = state["at"]
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        if self.stage == len(self.stages):
            return
        self.enter()
        for mine, theirs in zip(
            self.optimizers + self.schedules, state["optimizers"] + state["schedules"], strict=True
        ):
            mine.load_state_dict(theirs)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """The mean over all processes, in place."""
    flat = torch.cat([p.grad.flatten() for p in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad.copy_(part.view_as(p))


def optimizers(modules: list[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    named = [(name, p) for module in modules for name, p in module.named_parameters()]
    inner = [p for name, p in named if p.ndim == 2 and "layers." in name]
    outer = [p for name, p in named if not (p.ndim == 2 and "layers." in name)]
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True),
    ]


def schedule(steps: int) -> Callable[[int], float]:
    """Warm-up, then a cosine down to nothing."""
    warm = min(150, steps // 5)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return max(0.0, 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))

    return factor


class Watch:
    """Validation and the lines of progress."""

    def __init__(self, training: Training, scenes: int) -> None:
        self.training = training
        self.tokenizer = build_tokenizer()
        self.sets = {name: validation_scenes(scenes, unseen=name == "unseen") for name in ("seen", "unseen")}
        self.batches = {name: collate(drawn, Texts(0)) for name, drawn in self.sets.items()}

    def report(self, loss: float, left: float) -> None:
        """One line: where training stands, how well it does, how long it will take."""
        training = self.training
        stage = training.stages[training.stage]
        training.model.eval()
        quality = self.captions() if stage.captions else self.patches()
        training.model.train()
        at = f"{stage.name} {training.step}/{stage.steps}"
        print(f"{at}  loss {loss:.4f}  {quality}  {training.seconds / 60:.1f} min, {left / 60:.1f} left", flush=True)

    def patches(self) -> str:
        """How many patches of objects are recognised, by head."""
        shares = []
        for name, batch in self.batches.items():
            with torch.no_grad():
                features = image_features(self.training.model, batch["pixels"])
                right = self.training.heads.correct(features, batch["targets"])
            shares.append(name + " " + " ".join(f"{share:.3f}" for share in right))
        return ", ".join(shares)

    def captions(self) -> str:
        """How many captions are exact."""
        shares = []
        for name, scenes in self.sets.items():
            answers = torch_captions(self.training.model, self.tokenizer, [scene.pixels for scene in scenes])
            right = sum(answer == scene.caption for answer, scene in zip(answers, scenes, strict=True))
            shares.append(f"{name} {right}/{len(scenes)}")
        return "exact " + ", ".join(shares)


def run(training: Training, out: Path, every: int) -> None:
    """All stages from where training stands; the first process reports every so many steps and saves."""
    rank = distributed.get_rank()
    watch = Watch(training, 60) if rank == 0 else None
    while training.stage < len(training.stages):
        stage = training.stages[training.stage]
        batches = loader(training.seed + 1000 * rank + 100 * training.stage + training.step, BATCH)
        begun, before, mean, saved = time.monotonic(), training.step, 0.0, time.monotonic()
        while training.step < stage.steps:
            started = time.monotonic()
            loss = training.learn(next(batches))
            training.seconds += time.monotonic() - started
            mean = loss if not mean else 0.95 * mean + 0.05 * loss
            if watch and (training.step % every == 0 or training.step == stage.steps):
                pace = (time.monotonic() - begun) / (training.step - before)
                watch.report(mean, pace * (stage.steps - training.step))
            if watch and time.monotonic() - saved > CHECKPOINT_SECONDS:
                training.save(out)
                saved = time.monotonic()
        training.next_stage()
        if watch:
            training.save(out)
    if watch:
        training.model.save_pretrained(out / "model")


def work(rank: int, arguments: argparse.Namespace) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    store = f"tcp://127.0.0.1:{arguments.port}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=arguments.processes)
    stages = [
        Stage("vision", arguments.vision_steps, arguments.rate, captions=False),
        Stage("captions", arguments.caption_steps, arguments.rate, captions=True),
        Stage("once more", arguments.caption_steps, 0.75 * arguments.rate, captions=True),
    ]
    training = Training(stages, arguments.seed)
    if arguments.resume:
        training.load(arguments.out)
    run(training, arguments.out, arguments.every)
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description="Train the captioner.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and the trained model")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    parser.add_argument("--vision-steps", type=int, default=1200)
    parser.add_argument("--caption-steps", type=int, default=1700)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="one for each core")
    parser.add_argument("--port", type=int, default=29517, help="where the processes meet")
    parser.add_argument("--every", type=int, default=200, help="steps between two reports")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(work, (arguments,), nprocs=arguments.processes)


if __name__ == "__main__":
    main()
