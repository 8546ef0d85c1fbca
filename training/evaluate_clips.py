"""How well a model follows objects through held-out clips, with the tracker that ships.

python -m training.evaluate_clips WEIGHTS --clips 20 --frames 60 --out figures.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sam2edge.backends.torch import TorchBackend
from sam2edge.datatypes import BackendReport
from sam2edge.predictor import ImagePredictor
from sam2edge.tracker import VideoTracker
from training.batches import HELD_OUT_SEED
from training.clip_batches import MIN_PIXELS_SHARE
from training.clips import Clip, Cover, draw_clip
from training.corrections import next_click
from training.prompts import box_of

Metrics = dict[str, Any]
HIDDEN = 10  # frames that the object is covered for, in the clips that ask whether it is found again
_COVERED_FROM = 20
CORRECTED = 20  # the frame on which a click is given, in clips that are long enough


def overlap(found: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> float:
    """IoU of two masks (S, S); 1 where both are empty, as DAVIS counts it."""
    either = int((found | wanted).sum())
    return 1.0 if either == 0 else float((found & wanted).sum() / either)


def follow(
    tracker: VideoTracker, clip: Clip, asked: list[int], corrections: Mapping[int, list[int]] | None = None
) -> NDArray[np.float64]:
    """IoU (frames - 1, objects) on the frames after the first, on which each object's box is given.

    `corrections`: frame to the objects whose largest error gets a click there; what it mends counts from then on.
    """
    tracker.reset()
    for number in asked:
        tracker.prompt(clip.frames[0], object_id=number, box=box_of(clip.labels[0] == number))
    rows = []
    for time in range(1, len(clip.frames)):
        found, wanted = tracker.track(clip.frames[time]), _wanted(clip, time, asked)
        for number in (corrections or {}).get(time, []):
            x, y, label = next_click(found.masks[asked.index(number)], wanted[asked.index(number)])
            found = tracker.prompt(object_id=number, points=[[x, y]], labels=[label])
        rows.append([overlap(mask, right) for mask, right in zip(found.masks, wanted, strict=True)])
    return np.array(rows)


def _wanted(clip: Clip, time: int, asked: list[int]) -> list[NDArray[np.bool_]]:
    """The masks (S, S) of a frame; a sliver that does not count as being there counts as gone."""
    least = max(1.0, MIN_PIXELS_SHARE * clip.labels[0].size)
    masks = [clip.labels[time] == number for number in asked]
    return [mask & (mask.sum() >= least) for mask in masks]


def tracker_of(model: nn.Module) -> VideoTracker:
    predictor = ImagePredictor(TorchBackend(model, torch.device("cpu")), BackendReport("torch"))  # type: ignore[arg-type]
    return VideoTracker(predictor, input_color_format="rgb")


def evaluate_clips(
    model: nn.Module, clips: int, frames: int = 60, first_seed: int = HELD_OUT_SEED, most: int = 2
) -> Metrics:
    """Figures over `clips` held-out clips, up to `most` objects of each, prompted by their boxes on the first frame.

    "j": mean IoU over all frames but the first; "j_last": on the last one; "first_frame_kept": J of a tracker that
    leaves each object's true first mask where it was. With frames enough, "j_after_hidden": over the frames after an
    object was hidden for ten; "j_corrected" and "j_not_corrected": over the frames after the twentieth, with and
    without one click there on the largest error of each clip's worst object.
    """
    size, tracker = int(model.image_size), tracker_of(model)  # type: ignore[arg-type]
    means, lasts, still, after, pairs = [], [], [], [], []
    for seed in range(first_seed, first_seed + clips):
        clip = draw_clip(seed, size, frames)
        asked = list(clip.objects[:most])
        found = follow(tracker, clip, asked)
        means += list(found.mean(0))
        lasts += list(found[-1])
        first = [clip.labels[0] == number for number in asked]
        if frames > CORRECTED + 1:
            pairs += after_correction(tracker, clip, asked, found)
        still += [np.mean([overlap(f, now == n) for now in clip.labels[1:]]) for f, n in zip(first, asked, strict=True)]
    figures = {
        "size": size, "clips": clips, "frames": frames, "first_seed": first_seed, "objects": len(means),
        "j": _mean(means), "j_last": _mean(lasts), "first_frame_kept": _mean(still),
    }  # fmt: skip
    if frames > CORRECTED + 1:
        without, corrected = ([pair[n] for pair in pairs] for n in (0, 1))
        figures |= {
            "j_not_corrected": _mean(without), "j_corrected": _mean(corrected), "objects_corrected": len(pairs),
        }  # fmt: skip
    if frames > _COVERED_FROM + HIDDEN + 10:
        for seed in range(first_seed + clips, first_seed + 2 * clips):
            after += _after_hidden(tracker, seed, size, frames)
        figures |= {"j_after_hidden": _mean(after), "objects_hidden": len(after)}
    return figures


def after_correction(
    tracker: VideoTracker, clip: Clip, asked: list[int], found: NDArray[np.float64], at: int = CORRECTED
) -> list[tuple[float, float]]:
    """J after frame `at` without and with a click there, of the object that is worst off among those seen on it.

    `found` is what `follow` gave for `asked`. Nothing where no object is seen then, or none has an error.
    """
    seen = [index for index, mask in enumerate(_wanted(clip, at, asked)) if mask.any()]
    worst = min(seen, key=lambda index: float(found[at - 1, index]), default=None)
    if worst is None or found[at - 1, worst] == 1:
        return []
    corrected = follow(tracker, clip, [asked[worst]], {at: [asked[worst]]})
    return [(float(found[at:, worst].mean()), float(corrected[at:, 0].mean()))]


def _after_hidden(tracker: VideoTracker, seed: int, size: int, frames: int) -> list[float]:
    """J of the clip's largest object from its return on; nothing where it was not asked for or never hidden so long."""
    clip = draw_clip(seed, size, frames, Cover(0, _COVERED_FROM, _COVERED_FROM + HIDDEN))
    number = 2  # the first label after the background
    hidden = [not (labels == number).any() for labels in clip.labels]
    if number not in clip.objects or sum(hidden) < HIDDEN:
        return []
    found = follow(tracker, clip, [number])[:, 0]
    back = frames - hidden[::-1].index(True)
    return [float(found[back:].mean())] if back < frames - 5 else []


def _mean(values: list[Any]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def main() -> None:
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant
    from training.checkpoints import load_weights

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a training checkpoint (.pt) or weights (.safetensors)")
    parser.add_argument("--size", type=int, default=512, help="side of the model's input in pixels")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    model = Sam2(find_variant(EMBEDDED), image_size=args.size).eval()
    model.load_state_dict(load_weights(args.weights))
    text = json.dumps(evaluate_clips(model, args.clips, args.frames), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
