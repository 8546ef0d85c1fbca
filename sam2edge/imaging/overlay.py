"""Masks, and the prompts they came from, drawn onto a frame."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from sam2edge.errors import InvalidInputError

Color = tuple[int, int, int]
"""Blue, green, red, 0..255."""

_WHITE: Color = (255, 255, 255)
_GREEN: Color = (60, 200, 40)
_RED: Color = (50, 50, 235)
_GOLDEN_RATIO = 0.618034  # steps of it around the colour wheel keep neighbours apart, however many there are
_FIRST_HUE = 0.58  # blue: rare in what people photograph, and apart from the green and red of the prompts


def draw_masks(
    image_bgr: np.ndarray,
    masks: np.ndarray | Sequence[np.ndarray],
    *,
    points: np.ndarray | None = None,
    point_labels: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    alpha: float = 0.5,
    outline: bool = True,
) -> np.ndarray:
    """A copy of the image with each mask tinted and outlined in a colour of its own, and the prompts on top.

    Args:
        image_bgr: (H, W, 3) uint8, BGR; left as it is.
        masks: (N, H, W) or (H, W) bool, or any numbers, where not 0 is inside; N may be 0. Of a sequence one mask at a
            time is taken.
        points: (P, 2) x, y in pixels, drawn as dots.
        point_labels: (P,), 1 foreground (green), 0 background (red); all foreground when left out.
        boxes: (4,) or (B, 4) x1, y1, x2, y2 in pixels.
        labels: texts, one a mask, written above it; none where it is left out or empty. OpenCV draws ASCII letters
            alone, others become a question mark.
        colors: a colour a mask, taken in turn; by default as many distinct ones as there are masks.
        alpha: how much of the colour covers the inside, 0 to 1.
        outline: draw the edge of each mask.

    Returns:
        (H, W, 3) uint8, BGR, of its own memory.

    Raises:
        InvalidInputError: an image, masks, points or boxes of another shape or dtype, labels of another number than
            masks, alpha outside 0..1.
    """
    _check(image_bgr, alpha)
    if not isinstance(masks, Sequence) or isinstance(masks, (list, tuple)):
        masks = np.asarray(masks)
        masks = _to_planes(masks[None] if masks.ndim == 2 else masks, image_bgr)
    points, positive = _read_points(points, point_labels)
    corners = np.empty((0, 4)) if boxes is None else _read_rows(boxes, 4, "boxes", "(4,) or (B, 4)")
    picture = np.array(image_bgr, order="C")
    if labels and len(labels) != len(masks):
        raise InvalidInputError("labels do not match the masks", expected=f"{len(masks)} texts", got=len(labels))
    thickness = _stroke_pixels(picture)
    colors = colors or [distinct_color(index) for index in range(len(masks))]
    for index, mask in enumerate(masks):
        plane = mask if isinstance(masks, np.ndarray) else _to_planes(mask[None], image_bgr)[0]
        _draw_mask(picture, plane, colors[index % len(colors)], alpha, thickness if outline else 0)
    for x1, y1, x2, y2 in corners:
        for color, width in ((_WHITE, thickness + 2 * _halo_pixels(thickness)), (_GREEN, thickness)):
            cv2.rectangle(picture, _pixel(x1, y1), _pixel(x2, y2), color, width, cv2.LINE_AA)
    for (x, y), is_positive in zip(points, positive, strict=True):
        color, radius = _GREEN if is_positive else _RED, 5 * thickness // 2
        cv2.circle(picture, _pixel(x, y), radius + 2 * _halo_pixels(thickness), _WHITE, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, _pixel(x, y), radius, color, cv2.FILLED, cv2.LINE_AA)
    for index, (mask, label) in enumerate(zip(masks, labels or (), strict=bool(labels))):
        plane = mask if isinstance(masks, np.ndarray) else _to_planes(mask[None], image_bgr)[0]
        _draw_label(picture, plane, label, colors[index % len(colors)], thickness)
    return picture


def distinct_color(index: int) -> Color:
    """The colour of the `index`-th mask, BGR: vivid, and unlike those of its neighbours."""
    hue = (_FIRST_HUE + index * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def _draw_mask(picture: np.ndarray, mask: np.ndarray, color: Color, alpha: float, thickness: int) -> None:
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    # Only the mask's own rectangle is blended: masks are often small and frames large.
    inside = picture[y : y + height, x : x + width]
    tint = np.full_like(inside, color)
    blended = cv2.addWeighted(inside, 1 - alpha, tint, alpha, 0)
    cv2.copyTo(blended, mask[y : y + height, x : x + width], inside)
    if thickness:
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, _WHITE, thickness + 2 * _halo_pixels(thickness), cv2.LINE_AA)
        cv2.drawContours(picture, contours, -1, color, thickness, cv2.LINE_AA)


def _draw_label(picture: np.ndarray, mask: np.ndarray, label: str, color: Color, thickness: int) -> None:
    """The text on a ground of the mask's colour, above the mask, or inside it at the picture's upper edge."""
    x, y, width, _ = cv2.boundingRect(mask)
    text = label.encode("ascii", "replace").decode()
    if width == 0 or not text:
        return
    font, scale, stroke = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, thickness * 0.22), max(1, thickness // 2)
    (text_width, text_height), below = cv2.getTextSize(text, font, scale, stroke)
    x = max(0, min(x, picture.shape[1] - text_width - 4))
    base = max(y - 4, text_height + 4)  # the line that the letters stand on
    cv2.rectangle(picture, (x, base - text_height - 4), (x + text_width + 4, base + below - 2), color, cv2.FILLED)
    ink = (0, 0, 0) if float(np.dot(color, (0.114, 0.587, 0.299))) > 140 else _WHITE  # by the ground's luma
    cv2.putText(picture, text, (x + 2, base - 1), font, scale, ink, stroke, cv2.LINE_AA)


def _stroke_pixels(picture: np.ndarray) -> int:
    """Width of a line: 3 pixels at 720 lines, growing with the picture so that it stays as visible."""
    return max(1, round(min(picture.shape[:2]) / 240))


def _halo_pixels(thickness: int) -> int:
    """White on either side of a line, so that it shows on a ground of its own colour."""
    return max(1, round(thickness / 3))


def _pixel(x: float, y: float) -> tuple[int, int]:
    limit = 2**20  # beyond any picture; drawing functions take 32-bit numbers
    return round(float(np.clip(x, -limit, limit))), round(float(np.clip(y, -limit, limit)))


def _check(image_bgr: np.ndarray, alpha: float) -> None:
    if getattr(image_bgr, "dtype", None) != np.uint8 or image_bgr.ndim != 3 or image_bgr.shape[2] != 3:
        raise InvalidInputError(
            "image to draw on not usable",
            expected="(H, W, 3) uint8, BGR",
            got=_describe(image_bgr),
            remedy="convert it with cv2.cvtColor",
        )
    if not 0 <= alpha <= 1:
        raise InvalidInputError("alpha out of range", expected="0 to 1", got=alpha, remedy="0.5 shows both")


def _to_planes(masks: np.ndarray, image_bgr: np.ndarray) -> np.ndarray:
    """The masks as (N, H, W) uint8, 0 or 1, after a check of their shape."""
    if masks.ndim != 3 or masks.shape[1:] != image_bgr.shape[:2]:
        height, width = image_bgr.shape[:2]
        raise InvalidInputError(
            "masks do not fit the image",
            expected=f"(N, {height}, {width})",
            got=_describe(masks),
            remedy="draw masks on the image they were made from",
        )
    return np.not_equal(masks, 0).view(np.uint8)


def _read_points(points: np.ndarray | None, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2), and whether each is positive (P,) bool."""
    rows = np.empty((0, 2)) if points is None else _read_rows(points, 2, "points", "(P, 2)")
    positive = np.ones(len(rows), bool) if labels is None else np.asarray(labels).reshape(-1) == 1
    if len(positive) != len(rows):
        raise InvalidInputError(
            "point labels do not match the points",
            expected=f"{len(rows)} labels",
            got=len(positive),
            remedy="give one label a point",
        )
    return rows, positive


def _read_rows(values: np.ndarray, columns: int, name: str, expected: str) -> np.ndarray:
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != columns or not np.isfinite(rows).all():
        raise InvalidInputError(
            f"{name} to draw not usable",
            expected=f"{expected} finite pixels",
            got=_describe(values),
            remedy=f"give {name} as an array of that shape",
        )
    return rows


def _describe(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{getattr(value, 'dtype', '')} {tuple(shape)}".strip()
