"""Pictures and prompts as tensors, drawn in worker processes while the model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.losses import Targets
from training.pictures import Material, draw_picture
from training.pixels import normalise
from training.prompts import draw_prompts

HELD_OUT_SEED = 1 << 32  # scenes from here on are for evaluation alone
T = TypeVar("T")
MASK_STRIDE = 4  # pixels of the model's input in one cell of its masks


def on_device(value: Any, device: str) -> Any:
    """A batch whose tensors, those in dataclasses and lists within it too, are on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [on_device(part, device) for part in value]
    if value is None:
        return None
    return replace(value, **{f.name: on_device(getattr(value, f.name), device) for f in fields(value)})


@dataclass(frozen=True)
class Batch:
    """images (B, 3, S, S) normalised; coords (B, P, N, 2); labels (B, P, N); targets."""

    images: Tensor
    coords: Tensor
    labels: Tensor
    targets: Targets


def share_cells(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(..., S, S) -> (..., h, w): the share of each cell that is covered."""
    side = masks.shape[-1] // MASK_STRIDE
    cells = masks.astype(np.float32).reshape(*masks.shape[:-2], side, MASK_STRIDE, side, MASK_STRIDE)
    return np.asarray(cells.mean(axis=(-3, -1)), np.float32)


def draw_batch(
    material: Material, first_seed: int, images: int, prompts: int, size: int, large_share: float = 0.3
) -> Batch:
    """The batch of pictures `first_seed` to `first_seed + images`."""
    rows: list[tuple[Tensor, ...]] = []
    for seed in range(first_seed, first_seed + images):
        picture = draw_picture(material, seed, size, large_share)
        drawn = draw_prompts(picture, prompts, seed)
        cells = (drawn.anchors // MASK_STRIDE) @ np.array([1, size // MASK_STRIDE])
        arrays = (drawn.coords, drawn.labels, share_cells(drawn.targets), cells, drawn.same, drawn.present)
        tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in (*arrays, share_cells(drawn.others))]
        rows.append((normalise(picture.image), *tensors))
    image, coords, labels, *targets = (torch.stack(part) for part in zip(*rows, strict=True))
    return Batch(image, coords, labels, Targets(*targets))


class _Steps(Dataset[T]):
    """Batch number i of a run; i counts from the run's first step."""

    def __init__(self, draw: Callable[[int], T]) -> None:
        self._draw = draw

    def __getitem__(self, step: int) -> T:
        return self._draw(step)


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def drawn(draw: Callable[[int], T], steps: int, workers: int) -> Iterator[T]:
    """`draw(0)` to `draw(steps - 1)` in order, drawn ahead; the same whatever the number of workers."""
    yield from DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=range(steps),
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=6 if workers else None,
        multiprocessing_context="fork" if workers else None,  # `draw` may be a closure
    )
