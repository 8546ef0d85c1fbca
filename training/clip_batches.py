"""Clips and prompts as tensors, drawn in worker processes while the model trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batches import MASK_STRIDE, share_cells
from training.clips import Clip, draw_clip
from training.losses import Targets
from training.photo_clips import draw_photo_clip
from training.pictures import Material
from training.pixels import normalise
from training.prompts import click_inside, draw_prompt, edge_distance, slots

MIN_PIXELS_SHARE = 1e-4
"""Share of the picture that an object must show to count as being there."""


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames, P objects in each.

    frames (B, T, 3, S, S) normalised; coords (B, P, N, 2) and labels (B, P, N): the prompts on the first frame;
    given (B, P, S, S) float: the objects' masks there; targets: one an entry of T.
    """

    frames: Tensor
    coords: Tensor
    labels: Tensor
    given: Tensor
    targets: list[Targets]


def _frame_targets(
    labels: NDArray[np.uint8], asked: list[int], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Of one frame (S, S): masks (P, h, w), cells (P,), same (P, P), present (P,)."""
    side, count = labels.shape[0], len(asked)
    masks = np.stack([labels == label for label in asked])
    present = masks.sum((1, 2)) >= max(1.0, MIN_PIXELS_SHARE * side * side)
    depth = edge_distance(labels)
    anywhere = rng.integers(0, side, (count, 2))
    anchors = np.array(
        [click_inside(rng, m, depth) if there else at for m, there, at in zip(masks, present, anywhere, strict=True)],
        np.int64,
    )
    same = masks[:, anchors[:, 1], anchors[:, 0]]
    cells = (anchors // MASK_STRIDE) @ np.array([1, side // MASK_STRIDE])
    return share_cells(masks), cells, same.astype(np.float32), present.astype(np.float32)


def _clip_rows(clip: Clip, objects: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, list[tuple[Tensor, ...]]]:
    rng = np.random.default_rng((seed, 4))
    order = [int(label) for label in rng.permutation(clip.objects)]
    asked = [order[index % len(order)] for index in range(objects)]
    first = clip.labels[0]
    masks, depth = np.stack([first == label for label in asked]), edge_distance(first)
    prompts = [slots(draw_prompt(rng, mask, depth)) for mask in masks]
    targets = [tuple(torch.from_numpy(a) for a in _frame_targets(frame, asked, rng)) for frame in clip.labels]
    return (
        torch.stack([normalise(frame) for frame in clip.frames]),
        torch.from_numpy(np.stack([coords for coords, _ in prompts])),
        torch.from_numpy(np.stack([labels for _, labels in prompts])),
        torch.from_numpy(masks.astype(np.float32)),
        targets,
    )


def draw_any_clip(material: Material, seed: int, size: int, frames: int, leap: int) -> Clip:
    """A clip over a photograph or a drawn one, in the shares in which `material` has pictures."""
    if np.random.default_rng((seed, 12)).random() < material.real + material.pasted:
        clip = draw_photo_clip(material, seed, size, frames, leap)
        if clip is not None:
            return clip
    return draw_clip(seed, size, frames, leap=leap)


def draw_clip_batch(
    material: Material,
    first_seed: int,
    clips: int,
    objects: int,
    size: int,
    frames: int,
    leaps: tuple[int, ...] = (1,),
) -> ClipBatch:
    """The batch of clips `first_seed` to `first_seed + clips`, `objects` objects asked for in each.

    `leaps`: the times from frame to frame, of which each clip has one.
    """
    seeds = range(first_seed, first_seed + clips)
    drawn = [draw_any_clip(material, seed, size, frames, leaps[seed % len(leaps)]) for seed in seeds]
    rows = [_clip_rows(clip, objects, seed) for clip, seed in zip(drawn, seeds, strict=True)]
    pictures, coords, labels, given, targets = zip(*rows, strict=True)
    by_frame = [
        Targets(*(torch.stack(part) for part in zip(*frame, strict=True))) for frame in zip(*targets, strict=True)
    ]
    return ClipBatch(torch.stack(pictures), torch.stack(coords), torch.stack(labels), torch.stack(given), by_frame)
