"""Trains the embedded model on pictures: photographs, cut-outs pasted onto them, drawn scenes.

    python -m training.train --run runs/pictures --photos PHOTOS --made MADE --minutes 30

`--run` is a folder: `checkpoint.pt` (resumed from where it exists), `log.jsonl`, `weights.safetensors`. A stage is a
run with other options; `--from` starts it with the weights of an earlier one.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
from training.init_weights import load_imagenet_trunk, set_initial_values
from training.losses import Weights, total_loss
from training.optimisers import MuonAdamW, decayed
from training.pictures import Material, list_material


@dataclass(frozen=True)
class Options:
    """One stage: `images` pictures a step with `prompts` prompts each, at `size` pixels, for `steps` or `minutes`.

    `photos` and `made`: folders that `training.pictures.list_material` takes; without them all pictures are drawn.
    `real`, `pasted`: shares of the pictures, as `Material` has them. `lr` is constant after `warmup` steps and falls to
    `min_lr` over the last `cooldown` of the stage, a share of it; the trunk's is `trunk_lr` times that. `refine`: share
    of the steps in which `corrected` prompts of each picture get a click on their mask's largest error, up to `rounds`
    times. `contrast`: weight of that term; 2.0 from scratch, until masks differ between prompts. `only`:
    how the names of the parameters begin that are trained; all of them without it.
    """

    size: int = 256
    steps: int = 1_000_000
    minutes: float = math.inf
    images: int = 10
    prompts: int = 12
    photos: str = ""
    made: str = ""
    real: float = 0.5
    pasted: float = 0.3
    lr: float = 5e-4
    min_lr: float = 0.0
    cooldown: float = 0.4
    trunk_lr: float = 0.15
    warmup: int = 20
    weight_decay: float = 0.05
    ema_decay: float = 0.995
    refine: float = 0.5
    corrected: int = 4
    rounds: int = 2
    large_share: float = 0.4
    contrast: float = 0.3
    only: str = ""
    seed: int = 0
    workers: int = 1
    device: str = "cpu"
    log_every: int = 50
    save_every: int = 100
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


FROZEN = ("image_encoder.trunk.stem.", *(f"image_encoder.trunk.blocks.{i}." for i in range(3)))
"""The trunk up to stride 4: edges are edges in photographs as in ImageNet, and half of the time of a step is theirs."""


class Trainer:
    """A model, its running average, its optimiser, and the step they stand at."""

    def __init__(self, model: nn.Module, options: Options) -> None:
        self.model, self.options, self.step, self.seconds = model.to(options.device), options, 0, 0.0
        # A score learns the IoU alone; with the stability in it, it would learn to make up for that.
        self.model.sam_mask_decoder.weigh_by_stability = False  # type: ignore[union-attr, assignment]
        self.material = Material()
        if options.photos:
            self.material = list_material(Path(options.photos), Path(options.made), options.real, options.pasted)
        self.optimizer = MuonAdamW(self.groups(), options.lr)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups; "share" is their part of the learning rate."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith(self.options.only) and not name.startswith(FROZEN))
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        trunk = [p for n, p in named if n.startswith("image_encoder.trunk.")]
        rest = [p for n, p in named if not n.startswith("image_encoder.trunk.")]
        o = self.options
        return [*decayed(rest, o.weight_decay), *decayed(trunk, o.weight_decay, o.trunk_lr)]

    def draw(self, first_step: int) -> Iterator[Any]:
        """The batches from `first_step` to the stage's last."""
        o, material = self.options, self.material
        seed = first_scene(o.seed, o.size) + first_step * o.images

        def draw_step(step: int) -> Batch:
            return draw_batch(material, seed + step * o.images, o.images, o.prompts, o.size, o.large_share)

        return drawn(draw_step, o.steps - first_step, o.workers)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Figures of `model` on held-out scenes."""
        return evaluate(model, self.options.size, self.options.eval_scenes)

    def progress(self) -> float:
        """Share of the stage that is done, by steps or by the clock, whichever is further."""
        return max(self.step / self.options.steps, self.seconds / (60.0 * self.options.minutes))

    def lr(self) -> float:
        """Warm-up, then constant, then linear down to `min_lr`."""
        o = self.options
        left = min(1.0, (1.0 - self.progress()) / max(o.cooldown, 1e-9))
        return (o.min_lr + (o.lr - o.min_lr) * max(left, 0.0)) * min(1.0, (self.step + 1) / max(1, o.warmup))

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """What a step makes smaller, and figures to log: of the prompts as they were drawn and, in some steps, of
        corrected ones on the same encoding."""
        many, prompts = batch.coords.shape[:2]
        features = self.model.encode_image(batch.images)[:3]  # type: ignore[operator]
        out = self.model.decode(*spread(features, prompts), batch.coords.flatten(0, 1), batch.labels.flatten(0, 1))  # type: ignore[operator]
        loss, figures = total_loss(
            *by_image(out, (many, prompts)), batch.targets, Weights(contrast=self.options.contrast)
        )
        draw = np.random.default_rng((self.options.seed, self.step))
        if draw.random() < self.options.refine:
            corrected, found = self._correct(features, batch, out, draw)
            loss = loss + corrected * self.options.corrected / prompts
            figures["corrected_iou"] = found["iou_by_score"]
        return loss, figures

    def train_step(self, batch: Any) -> dict[str, float]:
        started = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr() * group["share"]
        loss, figures = self.loss(on_device(batch, self.options.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self._follow()
        self.step += 1
        self.seconds += time.monotonic() - started
        return figures

    def _correct(
        self, features: Sequence[Tensor], batch: Batch, out: Any, draw: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of some prompts of each picture after clicks on their masks' errors.

        Half of them have the mask before that handed back.
        """
        many, prompts = batch.coords.shape[:2]
        chosen = torch.from_numpy(draw.permutation(prompts)[: self.options.corrected]).to(batch.coords.device)
        features = spread(features, len(chosen))
        coords, labels = (part[:, chosen].flatten(0, 1) for part in (batch.coords, batch.labels))
        targets = batch.targets.choose(chosen)
        masks = masks_to_hand_back(out).unflatten(0, (many, prompts))[:, chosen].flatten(0, 1)
        rounds = int(draw.integers(1, self.options.rounds + 1))
        for last in (False,) * (rounds - 1) + (True,):
            clicks = error_clicks(masks, targets.masks.flatten(0, 1))
            coords, labels = with_click(coords, labels, clicks, targets.present.flatten() > 0)
            handed = torch.from_numpy(draw.random(len(masks)) < 0.5).to(masks)
            with torch.set_grad_enabled(last):
                out = self.model.decode(*features, coords, labels, masks, handed)  # type: ignore[operator]
            masks = masks_to_hand_back(out)
        return total_loss(*by_image(out, (many, len(chosen))), targets, Weights())

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.options.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1.0 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "options": asdict(self.options),
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average = {n: value.to(self.options.device, copy=True) for n, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def spread(features: Sequence[Tensor], prompts: int) -> list[Tensor]:
    """Each picture's features (B, ...) once for each of its prompts, (B * P, ...)."""
    return [f[:, None].expand(-1, prompts, *f.shape[1:]).flatten(0, 1) for f in features]


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
            _write_line(
                log, {"step": trainer.step, "seconds": round(time.monotonic() - started, 1), "lr": trainer.lr(), **line}
            )
            means.clear()
        done, late = trainer.progress() >= 1.0, time.monotonic() >= stop_at
        if trainer.step % o.save_every == 0 or done or late:
            save_run(trainer, run)
        if late:
            break
        if trainer.step % o.eval_every == 0 or done:
            _write_line(log, {"step": trainer.step, "held_out": _evaluate_average(trainer, make_model)})
        if done:
            break
    return trainer.progress() >= 1.0


def open_stage(
    trainer_type: type[Trainer], options: Options, run: Path, start: Path | None, make_model: Any
) -> Trainer:
    """A stage as it stands in the folder `run`, or new: with the weights of the file `start`, or initial ones."""
    torch.manual_seed(options.seed)
    model = make_model(options.size).train()
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.exists():
        if start is not None:
            model.load_state_dict(load_weights(start))
        else:
            set_initial_values(model, options.seed)
            load_imagenet_trunk(model)
    trainer = trainer_type(model, options)
    run.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        trainer.resume(load_checkpoint(checkpoint))
    return trainer


def make_embedded(size: int) -> nn.Module:
    """The embedded model for inputs of `size` pixels, untrained."""
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant

    return make_quick(Sam2(find_variant(EMBEDDED), image_size=size))


class _Gelu(nn.GELU):
    """Its gradient is many times quicker where the memory of both is laid out alike."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x.contiguous())
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient.contiguous())
        return out


def make_quick(model: nn.Module) -> nn.Module:
    """The same function, trained in less time on a CPU."""
    upscaling: Any = model.sam_mask_decoder.output_upscaling  # type: ignore[union-attr]
    for i, layer in enumerate(upscaling):
        if isinstance(layer, nn.GELU):
            upscaling[i] = _Gelu()
    trunk: Any = model.image_encoder.trunk  # type: ignore[union-attr]
    trunk.to(memory_format=torch.channels_last)
    return model


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
