"""What a click may do to a mask, for models that do not always follow clicks: rules on logits, without the model.

A model of few weights may answer one more click with a mask that is worse everywhere else, or that leaves the click on
its wrong side. So of its masks one that has the clicks on their right sides is taken, and of what a further click
changes only the region around that click (as in the progressive merge of FocalClick, Chen et al., CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2edge.contract import BACKGROUND, FOREGROUND
from sam2edge.datatypes import FloatArray

LARGE_CHANGE = 0.1
"""Share of the mask's area that one click changes at most.

On drawn scenes small changes by a click seldom make masks worse (24 of 528 below 0.2), large ones often do (41 of 94),
and whether the model rates its answer higher or lower tells them apart only with some weights.
"""


@dataclass(frozen=True)
class Clicks:
    """cells_xy (N, 2) int: column and row of the low-resolution logits; is_inside (N,) bool: foreground or background.

    The last `count_new` came with the latest prompt.
    """

    cells_xy: NDArray[np.intp]
    is_inside: NDArray[np.bool_]
    count_new: int

    @classmethod
    def from_model_input(cls, coords: FloatArray, labels: NDArray[np.int32], side: int, count_new: int) -> Clicks:
        """Of coords (N, 2) in pixels of the model's input and labels (N,); a box's corners are none."""
        used = (labels == FOREGROUND) | (labels == BACKGROUND)
        cells = np.clip((coords[used] / 4).astype(np.intp), 0, side - 1)
        return cls(cells, labels[used] == FOREGROUND, count_new)

    def count_missed(self, logits: FloatArray) -> int:
        """Clicks that lie on the wrong side of a mask, logits (h, w)."""
        columns, rows = self.cells_xy.T
        return int(np.count_nonzero((logits[rows, columns] > 0) != self.is_inside))


def merge_clicks(old: FloatArray, new: FloatArray, clicks: Clicks) -> FloatArray:
    """The mask `old` (h, w) with what `new`, the model's answer to the new clicks, changes around them.

    A foreground click adds, a background click removes: the connected cells that change so, that hold the click, and
    that are nearer to it than to any click of the other kind. Where these make up more than LARGE_CHANGE of the mask,
    only a disc of that area around the click.
    """
    taken = np.zeros(old.shape, np.bool_)
    for index in range(len(clicks.cells_xy) - clicks.count_new, len(clicks.cells_xy)):
        taken |= _find_change(old > 0, new > 0, clicks, index)
    return np.where(taken, new, old)


def _find_change(old: NDArray[np.bool_], new: NDArray[np.bool_], clicks: Clicks, index: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: old.shape[0], : old.shape[1]]
    distances = [(columns - x) ** 2 + (rows - y) ** 2 for x, y in clicks.cells_xy]
    is_inside = clicks.is_inside[index]
    changed = (old != new) & (new == is_inside)
    for other in np.flatnonzero(clicks.is_inside != is_inside):
        changed &= distances[index] <= distances[other]
    _, regions = cv2.connectedComponents(changed.astype(np.uint8), connectivity=8)
    x, y = clicks.cells_xy[index]
    found: NDArray[np.bool_] = (regions == regions[y, x]) & (regions > 0)
    most = LARGE_CHANGE * np.count_nonzero(old)
    if np.count_nonzero(found) > most:
        found &= distances[index] <= most / np.pi
    return found
