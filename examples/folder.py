"""A folder of photos from one camera, the same box in each, into one COCO data set.

python examples/folder.py FOLDER 245 96 297 144 > annotations.json
"""

import json
import sys
from pathlib import Path

import numpy as np

from sam2edge import AutoModel, read_photo


def main(folder: str, *corners: str) -> None:
    model, images, annotations = AutoModel.from_pretrained("auto"), [], []
    box = np.array(corners, float)
    for image_id, path in enumerate(sorted(Path(folder).glob("*.[jp][pn]g")), 1):
        photo = read_photo(path)
        height, width = photo.shape[:2]
        images.append({"id": image_id, "file_name": path.name, "height": height, "width": width})
        result = model.segment_images(photo, boxes=box, multi_mask_output=False)[0]
        for annotation in result.to_coco(image_id=image_id):
            annotations.append({**annotation, "id": len(annotations) + 1})
        print(path.name, result, file=sys.stderr)
    categories = [{"id": 1, "name": "object"}]
    print(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


if __name__ == "__main__":
    main(*sys.argv[1:])
