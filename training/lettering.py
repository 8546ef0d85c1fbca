"""Text as it is printed on things: letters that say nothing, in OpenCV's fonts, laid onto a surface."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.surfaces import FloatImage

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_LETTERS = np.array(list("aaabcdeeeefghiiklmnnooprrssttuvwxyzABCDEFGHIKLMNOPRSTUVW0123456789&%-+.!  "))
_TALL = 40  # pixels of a line


def draw_text(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One to six lines of text (h, w), 255 where there is ink."""
    count = int(rng.choice([1, 1, 1, 2, 3, 6]))
    most = int(rng.integers(2, 14))
    lines = ["".join(rng.choice(_LETTERS, int(rng.integers(1 + most // 2, most + 1)))) for _ in range(count)]
    font = int(rng.choice(_FONTS)) | (cv2.FONT_ITALIC if rng.random() < 0.2 else 0)
    scale = 1.8 if font & 15 == cv2.FONT_HERSHEY_PLAIN else 1.0
    thick = int(rng.integers(1, 6))
    wide = max(cv2.getTextSize(line, font, scale, thick)[0][0] for line in lines)
    ink = np.zeros((_TALL * count, wide + 8), np.uint8)
    for row, line in enumerate(lines):
        cv2.putText(ink, line, (4, _TALL * row + 29), font, scale, (255,), thick, cv2.LINE_AA)
    return ink


def lay_text(
    ink: NDArray[np.uint8], half_width: float, centre: NDArray[np.float64], matrix: NDArray[np.float64],
    origin: NDArray[np.float64], shape: tuple[int, int],
) -> FloatImage:  # fmt: skip
    """Coverage (h, w) of `ink`, 0 to 1, after `matrix @ point + origin`.

    Before that it lies with its middle at `centre` and reaches `half_width` to both sides.
    """
    # Pixels of the picture in one of the ink.
    pixels = float(np.sqrt(abs(np.linalg.det(matrix)))) * 2 * half_width / ink.shape[1]
    if pixels < 0.7:  # a warp alone would skip pixels
        pixels = max(pixels, 0.51 / min(ink.shape))  # a speck of text still has a pixel
        ink = np.asarray(cv2.resize(ink, None, fx=pixels, fy=pixels, interpolation=cv2.INTER_AREA), np.uint8)
    height, width = ink.shape
    turn = matrix * (2 * half_width / width)
    shift = matrix @ centre + origin - turn @ np.array([width / 2, height / 2])
    laid = cv2.warpAffine(ink, np.column_stack((turn, shift)), (shape[1], shape[0]))
    return np.asarray(laid * np.float32(1 / 255), np.float32)
