"""How well a model follows prompts on held-out scenes; prints the figures and writes them as JSON.

python -m training.evaluate WEIGHTS --size 512 --scenes 100 --out figures.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2edge.contract import FOREGROUND
from sam2edge.imaging.frame import LOGIT_LIMIT
from training.batches import HELD_OUT_SEED
from training.corrections import next_click
from training.pixels import normalise
from training.prompts import Click, box_of, box_points, click_inside, deepest_point, edge_distance, slots
from training.scenes import Scene, draw_scene

Masks = NDArray[np.bool_]
Metrics = dict[str, Any]
GOOD = 0.7  # IoU from which on a mask counts as good at a part or a whole


def decode_clicks(
    model: Any, features: tuple[Tensor, ...], prompts: list[list[Click]], size: int, previous: Tensor | None = None
) -> tuple[Masks, Any, Tensor]:
    """Masks (K, 3, size, size) bool, scores (K, 3) and low-resolution logits (K, 3, h, w) of K prompts on one image.

    `features` are the image's; `previous` (K, 1, h, w): logits of an earlier answer that are handed back.
    """
    rows = [slots(points) for points in prompts]
    coords = torch.from_numpy(np.stack([row[0] for row in rows]))
    labels = torch.from_numpy(np.stack([row[1] for row in rows]))
    many = [feature.expand(len(rows), -1, -1, -1) for feature in features[:3]]
    back = () if previous is None else (previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT), previous.new_ones(len(rows)))
    decoded = model.decode(*many, coords, labels, *back)
    low = decoded.low_res_masks[:, 1:].float()
    logits = F.interpolate(low, size=(size, size), mode="bilinear")
    return (logits > 0).numpy(), decoded.iou_scores[:, 1:].float().numpy(), low


def iou_of(masks: Masks, wanted: Masks) -> NDArray[np.float64]:
    """IoU (K, M) of masks (K, M, S, S) with wanted (K, S, S)."""
    both = (masks & wanted[:, None]).sum((2, 3))
    either = (masks | wanted[:, None]).sum((2, 3))
    return np.asarray(both / np.maximum(either, 1), np.float64)


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's; 0 where one of the two is constant."""
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (first, second)]
    constant = min(np.ptp(first), np.ptp(second)) == 0
    return 0.0 if constant else float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _distinct(args: Masks) -> float | None:
    """1 minus the mean IoU of the masks (K, S, S) chosen for different objects of one image."""
    pairs = [(a, b) for a in range(len(args)) for b in range(a)]
    if not pairs:
        return None
    shared = [(args[a] & args[b]).sum() / max((args[a] | args[b]).sum(), 1) for a, b in pairs]
    return 1.0 - float(np.mean(shared))


class _Tally:
    """Collects IoU and score per kind of prompt."""

    def __init__(self) -> None:
        self.lists: dict[str, list[float]] = defaultdict(list)
        self.scores: list[float] = []
        self.ious: list[float] = []

    def add(self, kind: str, answer: tuple[Masks, Any, Tensor], wanted: Masks) -> Masks:
        """Takes what `decode_clicks` gave; returns the chosen masks (K, S, S)."""
        masks, scores, _ = answer
        iou, rows = iou_of(masks, wanted), np.arange(len(masks))
        best = scores.argmax(1)
        self.lists[f"{kind}.by_score"] += list(iou[rows, best])
        self.lists[f"{kind}.oracle"] += list(iou.max(1))
        self.scores += list(scores[rows, best].astype(float))
        self.ious += list(iou[rows, best])
        return masks[rows, best]

    def add_ambiguous(self, masks: Masks, pair: Masks) -> None:
        """Three masks (1, 3, S, S) after a click on a part; `pair` (2, S, S): the part and its whole."""
        iou = iou_of(np.repeat(masks, 2, axis=0), pair)
        part, whole = iou.argmax(1)
        self.lists["click_on_part.part"].append(float(iou[0, part]))
        self.lists["click_on_part.whole"].append(float(iou[1, whole]))
        both = part != whole and iou[0, part] >= GOOD and iou[1, whole] >= GOOD
        self.lists["click_on_part.both_good"].append(float(both))
        apart = _distinct(masks[0])
        self.lists["click_on_part.masks_differ"] += [] if apart is None else [apart]

    def figures(self) -> Metrics:
        found: Metrics = {}
        for name, values in sorted(self.lists.items()):
            kind, _, part = name.partition(".")
            mean = round(float(np.mean(values)), 4)
            if part:
                found.setdefault(kind, {})[part] = mean
            else:
                found[kind] = mean
        found["score_rank_correlation"] = round(_rank_correlation(np.array(self.scores), np.array(self.ious)), 4)
        return found


def _evaluate_scene(model: Any, scene: Scene, rng: np.random.Generator, most: int, tally: _Tally) -> int:
    size = scene.labels.shape[0]
    asked = [int(label) for label in rng.permutation(scene.objects)[:most]]
    wanted = np.stack([scene.mask(label) for label in asked])
    features = model.encode_image(normalise(scene.image)[None])
    depth = edge_distance(scene.labels)

    # Off the parts: a click on one of those may rightly mean the part.
    clicks: list[list[Click]] = [[(*deepest_point(scene.labels == label), FOREGROUND)] for label in asked]
    answer = decode_clicks(model, features, clicks, size)
    args = tally.add("one_click", answer, wanted)
    tally.lists["followed"] += [float(mask[int(c[0][1]), int(c[0][0])]) for mask, c in zip(args, clicks, strict=True)]
    distinct = _distinct(args)
    tally.lists["distinct"] += [] if distinct is None else [distinct]
    for count in (2, 3):
        best = answer[2][torch.arange(len(asked)), torch.from_numpy(answer[1].argmax(1))][:, None]
        clicks = [[*c, next_click(m, w)] for c, m, w in zip(clicks, args, wanted, strict=True)]
        answer = decode_clicks(model, features, clicks, size)
        args = tally.add({2: "two_clicks", 3: "three_clicks"}[count], answer, wanted)
        if count == 2:
            tally.add("two_clicks_refined", decode_clicks(model, features, clicks, size, best), wanted)

    anywhere: list[list[Click]] = [[(*click_inside(rng, mask, depth), FOREGROUND)] for mask in wanted]
    tally.add("random_click", decode_clicks(model, features, anywhere, size), wanted)
    boxes = [box_points(*box_of(mask)) for mask in wanted]
    tally.add("box", decode_clicks(model, features, boxes, size), wanted)
    for part, whole in scene.parts:
        pair = np.stack([scene.mask(part), scene.mask(whole)])
        tally.add_ambiguous(decode_clicks(model, features, [[(*deepest_point(pair[0]), FOREGROUND)]], size)[0], pair)
    return len(asked)


@torch.no_grad()
def evaluate(model: Any, size: int, scenes: int, first_seed: int = HELD_OUT_SEED, most: int = 4) -> Metrics:
    """Figures over `scenes` held-out scenes of `size` pixels, up to `most` objects of each.

    IoU at full size, of the mask with the best score ("by_score") and of the best of three ("oracle"): one click in
    the object's middle, one anywhere on it, three clicks (the second and third in the middle of the largest error),
    its box. "followed": share of one-click masks that contain the click. "distinct": 1 minus the IoU between the
    masks of different objects of one scene. "two_clicks_refined": the second click with the first one's best mask
    handed back, "two_clicks" without it. "click_on_part": best of three for the part, and for the whole; how often one
    mask is good (0.7) at the part and another at the whole; 1 minus the IoU between the three.
    """
    tally, rng, asked = _Tally(), np.random.default_rng(first_seed), 0
    for seed in range(first_seed, first_seed + scenes):
        asked += _evaluate_scene(model, draw_scene(seed, size), rng, most, tally)
    return {"size": size, "scenes": scenes, "first_seed": first_seed, "objects": asked, **tally.figures()}


def main() -> None:
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import EMBEDDED, find_variant
    from training.checkpoints import load_weights

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a training checkpoint (.pt) or weights (.safetensors)")
    parser.add_argument("--size", type=int, default=512, help="side of the model's input in pixels")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    model = Sam2(find_variant(EMBEDDED), image_size=args.size).eval()
    model.load_state_dict(load_weights(args.weights))
    figures = evaluate(model, args.size, args.scenes)
    text = json.dumps(figures, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
