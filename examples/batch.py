"""Many photos and many boxes: each photo is embedded once, all its boxes go in one call.

    python examples/batch.py boxes.json

boxes.json: {"photo.jpg": [[x1, y1, x2, y2], ...], ...}
"""

import json
import sys
from pathlib import Path

import numpy as np

from sam2edge import AutoModel, InvalidInputError


def main(file: str) -> None:
    prompts = json.loads(Path(file).read_text())
    with AutoModel.from_pretrained("auto") as model:
        for photo, boxes in prompts.items():
            try:
                result = model.segment_images(photo, boxes=np.array(boxes, float), multi_mask_output=False)[0]
            except InvalidInputError as error:  # a damaged photo, a box outside it: go on with the others
                print(f"{photo}: {error}", file=sys.stderr)
                continue
            print(json.dumps({"photo": photo, "areas": result.areas.tolist(), "rle": result.to_rle()}))
        print(model.stats().calls, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
