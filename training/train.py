"""Trains the embedded model on drawn scenes.

    python -m training.train --run runs/micro --size 128 --steps 8000

`--run` is a folder: `checkpoint.pt` (resumed from where it exists), `log.jsonl`, `weights.safetensors`. A stage is a
run with another `--size`; `--from` starts it with the weights of an earlier one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from training.batches import Batch, draw_batch, drawn, on_device
from training.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from training.corrections import error_clicks, masks_to_hand_back, with_click
from training.evaluate import evaluate
from training.losses import Targets, Weights, total_loss
from training.optimisers import MuonAdamW, decayed
from training.start import set_initial_values


@dataclass(frozen=True)
class Options:
    """One stage: `steps` of `images` scenes with `prompts` prompts each, at `size` pixels.

    `refine`: share of the steps in which the model's own answer is improved on: half of the prompts get a click on its
    largest error, half get its mask handed back, as the dice fall.
    """

    size: int = 128
    steps: int = 8000
    images: int = 12
    prompts: int = 12
    rate: float = 6e-4
    last_rate: float = 6e-5
    warmup: int = 100
    decay: float = 0.05
    average: float = 0.998
    refine: float = 0.0
    large_share: float = 0.3
    seed: int = 0
    workers: int = 1
    device: str = "cpu"
    bf16: bool = False
    log_every: int = 50
    save_every: int = 500
    eval_every: int = 500
    eval_scenes: int = 24


def first_scene(seed: int, size: int) -> int:
    """Where the scenes of a run begin: far from those of runs with another seed or size, below 2^31."""
    return (seed * 64 + size // 32) * 10_000_000 % (1 << 31)


def by_image(out: Any, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The decoder's answer to B * P prompts, of `shape` (B, P), as `total_loss` takes it."""
    return (
        out.low_res_masks.unflatten(0, shape),
        out.iou_scores.unflatten(0, shape),
        out.object_score[:, 0].unflatten(0, shape),
    )


class Trainer:
    """A model, its running average, its optimiser, and the step they stand at."""

    def __init__(self, model: nn.Module, options: Options) -> None:
        self.model, self.options, self.step = model.to(options.device), options, 0
        self.optimizer = MuonAdamW(self.groups(), options.rate)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @staticmethod
    def prepare(model: nn.Module, options: Any) -> None:
        """Changes to the weights that a new run starts from."""

    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups; "share" is their part of the rate."""
        return decayed(list(self.model.parameters()), self.options.decay)

    def draw(self, first_step: int) -> Iterator[Any]:
        """The batches from `first_step` to the stage's last."""
        o = self.options
        seed = first_scene(o.seed, o.size) + first_step * o.images

        def draw_step(step: int) -> Batch:
            return draw_batch(seed + step * o.images, o.images, o.prompts, o.size, o.large_share)

        return drawn(draw_step, o.steps - first_step, o.workers)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Figures of `model` on held-out scenes."""
        return evaluate(model, self.options.size, self.options.eval_scenes)

    def rate(self) -> float:
        """Warm-up, then half a cosine down to `last_rate`."""
        o = self.options
        done = min(1.0, self.step / max(1, o.steps))
        cosine = o.last_rate + (o.rate - o.last_rate) * 0.5 * (1 + math.cos(math.pi * done))
        return cosine * min(1.0, (self.step + 1) / max(1, o.warmup))

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """What a step makes smaller, and figures to log."""
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.options.bf16):
            logits, scores, seen = self._forward(batch)
        return total_loss(logits, scores, seen, batch.targets, Weights())

    def train_step(self, batch: Any) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group["share"]
        loss, figures = self.loss(on_device(batch, self.options.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._follow()
        self.step += 1
        return figures

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """logits (B, P, 4, h, w), scores (B, P, 4), object score (B, P)."""
        many, prompts = batch.coords.shape[:2]
        features = self.model.encode_image(batch.images)  # type: ignore[operator]
        spread = [f[:, None].expand(-1, prompts, -1, -1, -1).flatten(0, 1) for f in features[:3]]
        coords, labels = batch.coords.flatten(0, 1), batch.labels.flatten(0, 1)
        asked: tuple[Tensor | None, ...] = (coords, labels)
        draw = np.random.default_rng((self.options.seed, self.step))
        if draw.random() < self.options.refine:
            asked = self._improved(spread, coords, labels, batch.targets, draw)
        return by_image(self.model.decode(*spread, *asked), (many, prompts))  # type: ignore[operator]

    @torch.no_grad()
    def _improved(
        self, features: list[Tensor], coords: Tensor, labels: Tensor, targets: Targets, draw: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The prompts, half of them with a click on the largest error, half with the best mask so far handed back.

        coords (K, N, 2), labels (K, N), masks (K, 1, h, w), whether they count (K,).
        """
        masks = masks_to_hand_back(self.model.decode(*features, coords, labels))  # type: ignore[operator]
        clicks = error_clicks(masks, targets.masks.flatten(0, 1))
        clicked, handed = (torch.from_numpy(draw.random(len(masks)) < 0.5).to(masks.device) for _ in range(2))
        clicked &= targets.present.flatten() > 0
        return (*with_click(coords, labels, clicks, clicked), masks, handed.to(masks.dtype))

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.options.average, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1.0 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "options": asdict(self.options),
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average = {n: value.to(self.options.device, copy=True) for n, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def _evaluate_average(trainer: Trainer, make_model: Any) -> dict[str, Any]:
    model = make_model(trainer.options.size).eval()
    model.load_state_dict(trainer.average)
    return trainer.evaluate(model)


def _write_line(path: Path, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    with path.open("a") as log:
        log.write(text + "\n")


def save_run(trainer: Trainer, run: Path) -> None:
    """Writes what a stage resumes from, then the weights; these state their step."""
    save_checkpoint(run / "checkpoint.pt", trainer.state())
    save_weights(run / "weights.safetensors", trainer.average, {"step": str(trainer.step)})


def run_stage(trainer: Trainer, run: Path, make_model: Any, stop_at: float = math.inf) -> bool:
    """Trains to the stage's last step; logs, evaluates and saves on the way. Returns whether that step is done.

    Stops after the step during which `time.monotonic()` passes `stop_at`, saved all the same.
    """
    o, log = trainer.options, run / "log.jsonl"
    means: dict[str, list[float]] = defaultdict(list)
    started = time.monotonic()
    for batch in trainer.draw(trainer.step):
        for name, value in trainer.train_step(batch).items():
            means[name].append(value)
        if trainer.step % o.log_every == 0:
            line = {name: round(sum(values) / len(values), 4) for name, values in means.items()}
            _write_line(log, {"step": trainer.step, "seconds": round(time.monotonic() - started, 1), **line})
            means.clear()
        late = time.monotonic() >= stop_at
        if trainer.step % o.save_every == 0 or trainer.step == o.steps or late:
            save_run(trainer, run)
        if late:
            break
        if trainer.step % o.eval_every == 0 or trainer.step == o.steps:
            _write_line(log, {"step": trainer.step, "held_out": _evaluate_average(trainer, make_model)})
    return trainer.step == o.steps


def open_stage(
    trainer_type: type[Trainer], options: Options, run: Path, start: Path | None, make_model: Any
) -> Trainer:
    """A stage as it stands in the folder `run`, or new: with the weights of the file `start`, or initial ones."""
    torch.manual_seed(options.seed)
    model = make_model(options.size).train()
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.exists():
        set_initial_values(model, options.seed)
        if start is not None:
            model.load_state_dict(load_weights(start))
        trainer_type.prepare(model, options)
    trainer = trainer_type(model, options)
    run.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        trainer.resume(load_checkpoint(checkpoint))
    return trainer


def make_embedded(size: int) -> nn.Module:
    """The embedded model for inputs of `size` pixels, untrained."""
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant

    return Sam2(find_variant(EMBEDDED), image_size=size)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(defaults: AnyOptions, description: str | None) -> tuple[AnyOptions, argparse.Namespace]:
    """The command line: the run's folder, where to start from, and a flag for every option."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoint, log and weights")
    parser.add_argument("--from", dest="start", type=Path, help="weights to start from: a .pt or .safetensors")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: torch decides)")
    for name, value in asdict(defaults).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(value), default=value, help=f"(default {value})")
    args = parser.parse_args()
    return replace(defaults, **{name: getattr(args, name) for name in asdict(defaults)}), args


def run_command(trainer_type: type[Trainer], defaults: Options, description: str | None) -> None:
    """Trains one stage as the command line says, from scratch, from other weights, or from where it stopped."""
    options, args = read_options(defaults, description)
    cv2.setNumThreads(1)  # its threads do not survive the fork of the workers
    if args.threads:
        torch.set_num_threads(args.threads)
    run_stage(open_stage(trainer_type, options, args.run, args.start, make_embedded), args.run, make_embedded)


if __name__ == "__main__":
    run_command(Trainer, Options(), __doc__)
