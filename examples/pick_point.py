"""Where a gripper takes hold of an object, from its mask: the point deepest inside, and the angle across its length.

python examples/pick_point.py examples/coins.png 245 96 297 144
"""

import math
import sys

import cv2
import numpy as np

from sam2edge import AutoModel, read_photo, write_png


def find_grasp(mask: np.ndarray) -> tuple[tuple[int, int], float, float]:
    """(x, y) in pixels, the gripper's angle in degrees from the x axis, and how far it must open, in pixels."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    length = 0.5 * math.atan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])  # the long axis
    return (int(x), int(y)), (math.degrees(length) + 90) % 180, 2 * float(depth.max())


def main(photo: str, *corners: str) -> None:
    image = read_photo(photo)
    result = AutoModel.from_pretrained("auto").segment_images(image, boxes=np.array(corners, float))[0]
    (x, y), degrees, opening = find_grasp(result.best_masks)
    print(f"x {x} y {y} angle {degrees:.0f} opening {opening:.0f} score {result.scores.max():.2f}")
    across = opening / 2 * np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    ends = [tuple(int(v) for v in np.array([x, y]) + side * across) for side in (-1, 1)]
    write_png("pick.drawn.png", cv2.line(result.draw(image), ends[0], ends[1], (0, 255, 255), 4, cv2.LINE_AA))


if __name__ == "__main__":
    main(*sys.argv[1:])
