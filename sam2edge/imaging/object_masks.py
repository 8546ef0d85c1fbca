"""What every result can do with the masks of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.imaging.frame import frame_to_uint8
from sam2edge.imaging.mask_formats import (
    POLYGON_TOLERANCE_PIXELS,
    coco_annotation,
    cut_out,
    mask_box,
    mask_polygons,
    mask_rle,
)
from sam2edge.imaging.overlay import draw_masks
from sam2edge.imaging.packed_mask import PackedMasks


class ObjectMasks:
    """Methods on the masks of N objects, in their order. Of several masks of one object the best is meant."""

    def _object_masks(self) -> NDArray[np.bool_] | PackedMasks:
        """(N, H, W) bool, or masks that are unpacked one at a time."""
        raise NotImplementedError

    def _object_scores(self) -> NDArray[np.float32]:
        """(N,) predicted IoU in 0..1."""
        raise NotImplementedError

    def _object_numbers(self) -> tuple[int, ...]:
        """N numbers that a person knows the objects by."""
        raise NotImplementedError

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """(N, 4) float32 x_min, y_min, x_max, y_max in pixels, right and bottom exclusive; zeros for an empty mask."""
        boxes = [mask_box(mask) or (0, 0, 0, 0) for mask in self._object_masks()]
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels inside each mask."""
        return np.array([np.count_nonzero(mask) for mask in self._object_masks()], np.int64)

    def to_polygons(self, tolerance_pixels: float = POLYGON_TOLERANCE_PIXELS) -> list[list[NDArray[np.float32]]]:
        """For each object its outlines: polygons (P, 2) of x, y in pixels, one a part, the largest first.

        They lie on the edges of pixels, at most `tolerance_pixels` from the mask's. Holes are filled.
        """
        return [mask_polygons(mask, tolerance_pixels) for mask in self._object_masks()]

    def to_rle(self) -> list[dict[str, Any]]:
        """For each object COCO's compressed run-length encoding, as pycocotools reads it."""
        return [mask_rle(mask) for mask in self._object_masks()]

    def to_coco(self, image_id: int = 1, category_id: int = 1, *, as_rle: bool = False) -> list[dict[str, Any]]:
        """A COCO annotation for each object whose mask is not empty, with polygons or run-length encoding; ids from 1.

        Where several photos make one data set, number the ids anew.
        """
        rows = zip(self._object_masks(), self._object_scores().tolist(), strict=True)
        found = [coco_annotation(mask, score, as_rle=as_rle) for mask, score in rows if mask.any()]
        return [
            {"id": n, "image_id": image_id, "category_id": category_id, **entry} for n, entry in enumerate(found, 1)
        ]

    def to_supervision(self) -> Any:
        """`supervision.Detections` of the objects whose masks are not empty, all of class 0.

        Raises BackendUnavailableError where supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise BackendUnavailableError("supervision is not installed", remedy="pip install supervision") from error
        masks = np.asarray(self._object_masks(), bool).reshape(self._object_masks().shape)
        scores, numbers = self._object_scores(), np.array(self._object_numbers(), int)
        there = masks.any(axis=(1, 2))
        return supervision.Detections(
            xyxy=self.boxes_xyxy[there],
            mask=masks[there],
            confidence=scores[there],
            class_id=np.zeros(int(there.sum()), int),
            tracker_id=numbers[there],
        )

    def cutout(self, image: Any) -> NDArray[np.uint8]:
        """The image with everything but the objects transparent: (H, W, 4) uint8 in the image's colour order.

        `image` is the photo that the masks were made from, in any form that a model takes.
        """
        pixels = self._pixels(image)[0]
        inside = np.zeros(pixels.shape[:2], bool)
        for mask in self._object_masks():
            inside |= mask
        return cut_out(pixels, inside)

    def draw(self, image: Any, *, labels: Sequence[str] | None = None, alpha: float = 0.5) -> NDArray[np.uint8]:
        """A picture (H, W, 3) uint8, in the image's colour order, of the masks in colours of their own.

        `labels` are N texts; by default the score, with the object's number where there are several; [] draws none.
        """
        pixels, order = self._pixels(image)
        if labels is None:
            labels = self.labels()
        picture = draw_masks(
            pixels if order == "bgr" else np.ascontiguousarray(pixels[..., ::-1]),
            self._object_masks(),
            labels=labels,
            alpha=alpha,
        )
        return picture if order == "bgr" else np.ascontiguousarray(picture[..., ::-1])

    def labels(self) -> list[str]:
        """What `draw` writes beside each mask: its score, with the object's number where there are several."""
        numbers, scores = self._object_numbers(), self._object_scores().tolist()
        return [
            f"{number} {score:.2f}" if len(numbers) > 1 else f"{score:.2f}"
            for number, score in zip(numbers, scores, strict=True)
        ]

    def _pixels(self, image: Any) -> tuple[NDArray[np.uint8], str]:
        pixels, order = frame_to_uint8(image)
        masks = self._object_masks()
        if pixels.shape[:2] != masks.shape[1:]:
            raise InvalidInputError(
                "masks do not fit the image",
                expected=f"an image of {masks.shape[2]}x{masks.shape[1]} pixels",
                got=f"{pixels.shape[1]}x{pixels.shape[0]}",
                remedy="pass the image that the masks were made from",
            )
        return pixels, order
