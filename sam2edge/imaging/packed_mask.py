"""Masks in little memory: the bits of a mask's own box, compressed. Hundreds of a large photo take a few megabytes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sam2edge.imaging.mask_formats import mask_box

_LEVEL = 1  # zlib's quickest: masks are smooth, and higher levels save little


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask that is not empty, of an image of `size_hw` pixels; `box_xyxy` is its own, right and bottom exclusive."""

    size_hw: tuple[int, int]
    box_xyxy: tuple[int, int, int, int]
    area: int
    bits: bytes

    def unpack(self) -> NDArray[np.bool_]:
        """(H, W) bool, in memory of its own."""
        left, top, right, bottom = self.box_xyxy
        height, width = bottom - top, right - left
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        mask = np.zeros(self.size_hw, bool)
        mask[top:bottom, left:right] = np.unpackbits(bits, count=height * width).reshape(height, width)
        return mask


def pack_mask(
    mask: NDArray[np.bool_], corner_xy: tuple[int, int] = (0, 0), size_hw: tuple[int, int] | None = None
) -> PackedMask | None:
    """A mask (H, W), or a part of one at `corner_xy` of an image of `size_hw` pixels; None where it is empty."""
    box = mask_box(mask)
    if box is None:
        return None
    left, top, right, bottom = box
    inside = mask[top:bottom, left:right]
    x, y = corner_xy
    return PackedMask(
        size_hw or (mask.shape[0], mask.shape[1]),
        (x + left, y + top, x + right, y + bottom),
        int(np.count_nonzero(inside)),
        zlib.compress(np.packbits(inside).tobytes(), _LEVEL),
    )


class PackedMasks(Sequence[NDArray[np.bool_]]):
    """Masks of one image, each (H, W) bool, unpacked when it is asked for and not kept."""

    def __init__(self, packed: Sequence[PackedMask], size_hw: tuple[int, int]) -> None:
        self._packed = packed
        self.shape = (len(packed), *size_hw)

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...

    @overload
    def __getitem__(self, index: slice) -> PackedMasks: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.bool_] | PackedMasks:
        if isinstance(index, slice):
            return PackedMasks(self._packed[index], self.shape[1:])
        return self._packed[index].unpack()
