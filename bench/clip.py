"""A drawn clip: coins that wander over a photo which shifts slowly, with the true mask of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples"
COINS_XY = ((272, 121), (212, 192), (156, 52), (300, 262))
"""Centres of four coins in examples/coins.png."""
COIN_RADIUS = 21
TINTS_BGR = ((1.0, 1.0, 1.0), (0.45, 0.8, 1.1), (1.1, 0.7, 0.4), (0.5, 1.1, 0.6))
SHIFT = 0.04
"""How far the background moves at most, as a share of the frame's sides."""


class DrawnClip:
    """Frames by number, without end; each a pure function of its number. Coins move on closed curves of their own.

    Where two meet, the one of the higher number is in front.
    """

    def __init__(self, size_wh: tuple[int, int] = (1280, 720), coins: int = 1) -> None:
        self.size_wh = size_wh
        self.coins = coins
        self.radius = min(size_wh) // 9
        width, height = size_wh
        photo, sheet = (cv2.imread(str(EXAMPLES / name)) for name in ("coffee.png", "coins.png"))
        assert photo is not None and sheet is not None
        self._background = cv2.resize(photo, (round(width * (1 + 2 * SHIFT)), round(height * (1 + 2 * SHIFT))))
        self._coins = [self._coin(sheet, number) for number in range(coins)]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, BGR."""
        width, height = self.size_wh
        left = round(SHIFT * width * (1 + np.sin(number / 47)))
        top = round(SHIFT * height * (1 + np.sin(number / 61)))
        picture = self._background[top : top + height, left : left + width].copy()
        for coin in range(self.coins):
            patch, inside = self._coins[coin]
            x, y = self._corner(number, coin)
            place = picture[y : y + 2 * self.radius, x : x + 2 * self.radius]
            place[inside] = patch[inside]
        return picture

    def mask(self, number: int, coin: int) -> NDArray[np.bool_]:
        """(H, W) bool: where the coin is seen."""
        labels = np.full(self.size_wh[::-1], -1, np.int32)
        for other in range(self.coins):
            x, y = self._corner(number, other)
            labels[y : y + 2 * self.radius, x : x + 2 * self.radius][self._coins[other][1]] = other
        return np.asarray(labels == coin)

    def box(self, number: int, coin: int) -> list[int]:
        """x_min, y_min, x_max, y_max of the coin, hidden or not."""
        x, y = self._corner(number, coin)
        return [x, y, x + 2 * self.radius - 1, y + 2 * self.radius - 1]

    def _corner(self, number: int, coin: int) -> tuple[int, int]:
        phase = coin * 2.4
        across, down = 0.5 + 0.5 * np.sin(number / 37 + phase), 0.5 + 0.5 * np.cos(number / 29 + 1.7 * phase)
        width, height = self.size_wh
        return round(across * (width - 2 * self.radius - 1)), round(down * (height - 2 * self.radius - 1))

    def _coin(self, sheet: NDArray[Any], number: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        x, y = COINS_XY[number % len(COINS_XY)]
        side = 2 * self.radius
        crop = sheet[y - COIN_RADIUS : y + COIN_RADIUS, x - COIN_RADIUS : x + COIN_RADIUS]
        tinted = cv2.resize(crop, (side, side)) * np.array(TINTS_BGR[number // len(COINS_XY) % len(TINTS_BGR)])
        inside = np.zeros((side, side), np.uint8)
        cv2.circle(inside, (self.radius, self.radius), self.radius - 1, 1, -1)
        return np.clip(tinted, 0, 255).astype(np.uint8), inside.astype(bool)


def iou(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    union = np.count_nonzero(left | right)
    return np.count_nonzero(left & right) / union if union else 1.0


def write_clip(folder: str, frames: int, size_wh: tuple[int, int]) -> None:
    """00000.jpg and on, at quality 95, the highest that most cameras give."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    clip = DrawnClip(size_wh)
    for number in range(frames):
        assert cv2.imwrite(f"{folder}/{number:05d}.jpg", clip.frame(number), [cv2.IMWRITE_JPEG_QUALITY, 95])


def read_clip(folder: str) -> list[NDArray[Any]]:
    frames = [cv2.imread(str(path)) for path in sorted(Path(folder).glob("*.jpg"))]
    return [frame for frame in frames if frame is not None]
