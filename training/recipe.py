"""The whole recipe for a machine with a GPU, in pieces that may be cut at any time.

    python -m training.recipe --run runs/gpu --from WEIGHTS --photos PHOTOS --made MADE --device cuda --workers 16 \\
        --minutes 9

Give the same command again and again: it goes on where it stopped, stage after stage, saves when the minutes are over,
and says what is left. In the end `weights.safetensors` and `figures.json` lie in the run's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors import SafetensorError, safe_open

from training.checkpoints import load_weights
from training.evaluate import evaluate
from training.evaluate_clips import evaluate_clips
from training.train import Options, Trainer, make_embedded, open_stage, run_stage, save_run
from training.train_clips import ClipOptions, ClipTrainer

_FIGURES_SECONDS = 300  # a call that trained starts on the figures with this much time left; one that did not, always


@dataclass(frozen=True)
class Stage:
    """Starts from the weights of the stage before it; clips where the options say so, else pictures alone."""

    name: str
    options: Options

    @property
    def trainer_type(self) -> type[Trainer]:
        return ClipTrainer if isinstance(self.options, ClipOptions) else Trainer


def _pictures(name: str, size: int, steps: int, images: int, **more: Any) -> Stage:
    return Stage(name, Options(size=size, steps=steps, images=images, eval_every=10**6, save_every=250, **more))


def _clips(name: str, size: int, steps: int, images: int, **more: Any) -> Stage:
    return Stage(name, ClipOptions(size=size, steps=steps, images=images, eval_every=10**6, save_every=100, **more))


# Sizes of steps are for a datacentre GPU and sixteen cores that draw, at 30 pictures a second each. The seeds differ,
# so that no picture comes twice.
STAGES = (
    _pictures("a256", 256, 3000, 48, prompts=16, cooldown=0.0, seed=10),
    _clips("b256", 256, 1500, 32, prompts=12, clips=8, cooldown=0.0, seed=11),
    _clips("c384", 384, 1500, 16, prompts=12, clips=6, frames=8, lr=4e-4, cooldown=0.6, seed=12),
)
TOY_STAGES = (
    _pictures("a", 64, 2, 2, prompts=3, corrected=1, eval_scenes=1),
    _clips("m", 64, 2, 2, prompts=2, clips=1, objects=2, frames=3, corrected=1, eval_scenes=1),
)


def run_recipe(
    run: Path, stages: tuple[Stage, ...], start: Path | None, stop_at: float, make_model: Any = make_embedded
) -> bool:
    """Trains until `time.monotonic()` passes `stop_at`; returns whether all stages are done. Each call does a step.

    `start`: weights to begin with; None begins from scratch.
    """
    for stage in stages:
        folder, options = run / stage.name, stage.options
        weights = folder / "weights.safetensors"
        if steps_done(weights) < options.steps:
            trainer = open_stage(stage.trainer_type, options, folder, start, make_model)
            if not run_stage(trainer, folder, make_model, stop_at):
                return False
            if steps_done(weights) < options.steps:  # an earlier call was cut between checkpoint and weights
                save_run(trainer, folder)
            if time.monotonic() >= stop_at and stage is not stages[-1]:
                return False
        start = weights
    assert start is not None
    shutil.copyfile(start, run / "weights.safetensors")
    return True


def steps_done(weights: Path) -> int:
    """The step that the weights of a stage state; 0 where there are none."""
    try:
        with safe_open(str(weights), "pt") as file:
            return int(file.metadata()["step"])
    except (FileNotFoundError, SafetensorError):
        return 0


def what_is_left(run: Path, stages: tuple[Stage, ...]) -> list[str]:
    """One line for every stage that is not done."""
    done = {stage: steps_done(run / stage.name / "weights.safetensors") for stage in stages}
    return [f"{s.name}: {count} of {s.options.steps} steps" for s, count in done.items() if count < s.options.steps]


def write_figures(run: Path, size: int, scenes: int, clips: int, frames: int) -> dict[str, Any]:
    """Figures of the finished weights on held-out scenes and clips, into `figures.json`."""
    model: Any = make_embedded(size).eval()
    model.load_state_dict(load_weights(run / "weights.safetensors"))
    figures = {"scenes": evaluate(model, size, scenes), "clips": evaluate_clips(model, clips, frames)}
    (run / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of all stages")
    parser.add_argument("--from", dest="start", type=Path, help="weights to begin with: those that ship")
    parser.add_argument("--photos", default="", help="folder of photographs; without it all pictures are drawn")
    parser.add_argument("--made", default="", help="folder of their regions and garments")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes for the figures")
    parser.add_argument("--clips", type=int, default=8, help="held-out clips for the figures")
    parser.add_argument("--frames", type=int, default=60, help="length of those clips")
    parser.add_argument("--toy", action="store_true", help="two tiny stages, to see that it works here")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # its threads do not survive the fork of the workers
    torch.set_float32_matmul_precision("high")  # TF32 where the device has it
    given = {name: getattr(args, name) for name in ("photos", "made", "device", "workers")}
    stages = tuple(replace(s, options=replace(s.options, **given)) for s in (TOY_STAGES if args.toy else STAGES))
    stop_at = time.monotonic() + 60 * args.minutes
    had_to_train = bool(what_is_left(args.run, stages))
    if not run_recipe(args.run, stages, args.start, stop_at):
        print("left: " + "; ".join([*what_is_left(args.run, stages), "the figures"]), flush=True)
    elif had_to_train and stop_at - time.monotonic() < _FIGURES_SECONDS:
        print("left: the figures", flush=True)
    else:
        size = stages[-1].options.size
        print(json.dumps(write_figures(args.run, size, args.scenes, args.clips, args.frames), indent=1))
        print(f"done: {args.run / 'weights.safetensors'}")


if __name__ == "__main__":
    main()
