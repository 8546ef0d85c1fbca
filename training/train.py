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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.batches import Batch, batches
from training.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from training.evaluate import evaluate
from training.losses import Weights, total_loss
from training.start import set_initial_values


@dataclass(frozen=True)
class Options:
    """One stage: `steps` of `images` scenes with `prompts` prompts each, at `size` pixels."""

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
    seed: int = 0
    workers: int = 1
    bf16: bool = False
    log_every: int = 50
    save_every: int = 500
    eval_every: int = 500
    eval_scenes: int = 24


class Trainer:
    """A model, its running average, its optimiser, and the step they stand at."""

    def __init__(self, model: nn.Module, options: Options) -> None:
        self.model, self.options, self.step = model, options, 0
        wide = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": wide, "weight_decay": options.decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98))
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def rate(self) -> float:
        """Warm-up, then half a cosine down to `last_rate`."""
        o = self.options
        done = min(1.0, self.step / max(1, o.steps))
        cosine = o.last_rate + (o.rate - o.last_rate) * 0.5 * (1 + math.cos(math.pi * done))
        return cosine * min(1.0, (self.step + 1) / max(1, o.warmup))

    def train_step(self, batch: Batch) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            logits, scores, seen = self._forward(batch)
        loss, figures = total_loss(logits, scores, seen, batch.targets, Weights())
        self.optimizer.zero_grad(set_to_none=True)
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
        mask_input, has_mask = self._masks_to_refine(spread, coords, labels)
        out = self.model.decode(*spread, coords, labels, mask_input, has_mask)  # type: ignore[operator]
        shape = (many, prompts)
        return (
            out.low_res_masks.unflatten(0, shape),
            out.iou_scores.unflatten(0, shape),
            out.object_score[:, 0].unflatten(0, shape),
        )

    @torch.no_grad()
    def _masks_to_refine(
        self, features: list[Tensor], coords: Tensor, labels: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """For a share of the steps: the best masks so far (K, 1, h, w), given back to half of the prompts."""
        draw = torch.Generator().manual_seed(self.options.seed * 1_000_003 + self.step)
        if torch.rand((), generator=draw) >= self.options.refine:
            return None, None
        out = self.model.decode(*features, coords, labels)  # type: ignore[operator]
        best = out.iou_scores[:, 1:].argmax(1) + 1
        masks = out.low_res_masks[torch.arange(len(best)), best][:, None].float()
        has_mask = (torch.rand(len(best), generator=draw) < 0.5).float()
        return masks, has_mask

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
        self.average = {name: value.clone() for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def _evaluate_average(trainer: Trainer, make_model: Any) -> dict[str, Any]:
    model = make_model(trainer.options.size).eval()
    model.load_state_dict(trainer.average)
    return evaluate(model, trainer.options.size, trainer.options.eval_scenes)


def _write_line(path: Path, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    with path.open("a") as log:
        log.write(text + "\n")


def _save(trainer: Trainer, run: Path) -> None:
    save_checkpoint(run / "checkpoint.pt", trainer.state())
    save_weights(run / "weights.safetensors", trainer.average, {"step": str(trainer.step)})


def run_stage(trainer: Trainer, run: Path, make_model: Any) -> None:
    """Trains to the stage's last step; logs, evaluates and saves on the way."""
    o, log = trainer.options, run / "log.jsonl"
    first_seed = (o.seed * 64 + o.size // 32) * 10_000_000 % (1 << 31) + trainer.step * o.images
    means: dict[str, list[float]] = defaultdict(list)
    started = time.monotonic()
    for batch in batches(first_seed, o.steps - trainer.step, o.images, o.prompts, o.size, o.workers):
        for name, value in trainer.train_step(batch).items():
            means[name].append(value)
        if trainer.step % o.log_every == 0:
            line = {name: round(sum(values) / len(values), 4) for name, values in means.items()}
            _write_line(log, {"step": trainer.step, "seconds": round(time.monotonic() - started, 1), **line})
            means.clear()
        if trainer.step % o.eval_every == 0 or trainer.step == o.steps:
            _write_line(log, {"step": trainer.step, "held_out": _evaluate_average(trainer, make_model)})
        if trainer.step % o.save_every == 0 or trainer.step == o.steps:
            _save(trainer, run)


def _options() -> tuple[Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoint, log and weights")
    parser.add_argument("--from", dest="start", type=Path, help="weights to start from: a .pt or .safetensors")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: torch decides)")
    for name, value in asdict(Options()).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(value), default=value, help=f"(default {value})")
    args = parser.parse_args()
    return Options(**{name: getattr(args, name) for name in asdict(Options())}), args


def main() -> None:
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant

    options, args = _options()
    if args.threads:
        torch.set_num_threads(args.threads)

    def make_model(size: int) -> nn.Module:
        return Sam2(find_variant(EMBEDDED), image_size=size)

    torch.manual_seed(options.seed)
    model = make_model(options.size).train()
    set_initial_values(model, options.seed)
    if args.start:
        model.load_state_dict(load_weights(args.start))
    trainer = Trainer(model, options)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(load_checkpoint(checkpoint))
    run_stage(trainer, args.run, make_model)


if __name__ == "__main__":
    main()
