"""One photo, one box: the object cut out, its polygon and its score.

python examples/photo.py examples/coins.png 245 96 297 144
"""

import sys

import numpy as np

from sam2edge import AutoModel, write_png


def main(photo: str, *corners: str) -> None:
    model = AutoModel.from_pretrained("auto")
    result = model.segment_images(photo, boxes=np.array(corners, float), multi_mask_output=False)[0]
    print(result)
    print("box", result.boxes_xyxy[0], "area", result.areas[0], "pixels")
    print("corners of the outline:", len(result.to_polygons()[0][0]))
    write_png("photo.cutout.png", result.cutout(photo))
    write_png("photo.drawn.png", result.draw(photo))


if __name__ == "__main__":
    main(*sys.argv[1:])
