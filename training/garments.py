"""Garments cut out of their photographs by GrabCut, where it is sure of them.

    python -m training.garments PHOTOS --out GARMENTS [--held-out]

GrabCut runs twice, its frame closer to the picture's edge the first time; a garment is kept where both agree.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.photo_folder import list_photos

_SIDE = 256
_MARGINS = (0.06, 0.12)  # of the picture that is background for sure, on every side
_ROUNDS = 4
_AGREED = 0.92  # IoU of the two
_LEAST_SHARE, _MOST_SHARE = 0.08, 0.8  # of the picture
_LARGEST_HOLE = 0.01  # of the picture that is filled


def cut_out(photo: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """photo (H, W, 3) uint8 BGR -> its garment (H, W), or None where GrabCut is not sure."""
    scale = _SIDE / max(photo.shape[:2])
    small = np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    found = [_grab_cut(small, margin) for margin in _MARGINS]
    tight, loose = found
    agreed = (tight & loose).sum() >= _AGREED * max((tight | loose).sum(), 1)
    if not agreed or not _LEAST_SHARE < tight.mean() < _MOST_SHARE:
        return None
    whole = _fill_small_holes(cv2.morphologyEx(tight.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)
    return np.asarray(cv2.resize(whole.astype(np.float32), photo.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5)


def _grab_cut(photo: NDArray[np.uint8], margin: float) -> NDArray[np.bool_]:
    """The largest piece (H, W) of what GrabCut finds; nothing where it finds one colour alone."""
    height, width = photo.shape[:2]
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    y, x = int(height * margin), int(width * margin)
    labels[y : height - y, x : width - x] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)
    try:
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(photo, labels, (0, 0, 0, 0), *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return np.zeros((height, width), bool)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    opened = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    pieces, numbers, stats, _ = cv2.connectedComponentsWithStats(opened)
    if pieces < 2:
        return np.zeros((height, width), bool)
    return np.asarray(numbers == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])), bool)


def _fill_small_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, numbers, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8))
    small = [i for i in range(1, pieces) if stats[i, cv2.CC_STAT_AREA] < _LARGEST_HOLE * mask.size]
    return mask | np.isin(numbers, small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photographs, as training.photo_folder describes it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the garments, .png with alpha")
    parser.add_argument("--held-out", action="store_true", help="of the photographs that are never trained on")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [path for path in list_photos(args.photos, args.held_out) if path.parent.name == "clothing"]
    kept = 0
    for path in paths:
        photo = np.asarray(cv2.imread(str(path)), np.uint8)
        mask = cut_out(photo)
        if mask is not None:
            cv2.imwrite(str(args.out / f"{path.stem}.png"), np.dstack([photo, mask.astype(np.uint8) * 255]))
            kept += 1
    print(f"{kept} of {len(paths)} garments are sure")


if __name__ == "__main__":
    main()
