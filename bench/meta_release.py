"""The peer: Meta's release of SAM 2 (`pip install --no-deps sam2==1.1.0`), its image predictor on the CPU.

    python -m bench.meta_release --checkpoint FILE --photo FILE --point X,Y

serves the cases "embed" (`set_image`) and "prompt" (`predict`, three masks) to the harness. It needs torch, sam2,
hydra-core, iopath, pillow and tqdm in its environment, and neither torchvision nor sam2edge.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from PIL import Image

from bench import torchvision_standin
from bench.worker import serve

torchvision_standin.install()

from sam2.build_sam import build_sam2  # noqa: E402  # after the stand-in
from sam2.sam2_image_predictor import SAM2ImagePredictor  # noqa: E402

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--config", default=TINY)
    parser.add_argument("--photo", required=True)
    parser.add_argument("--point", required=True, help="X,Y in photo pixels")
    args = parser.parse_args()
    photo_rgb = np.array(Image.open(args.photo).convert("RGB"))
    points = np.array([[float(v) for v in args.point.split(",")]])
    predictor = SAM2ImagePredictor(build_sam2(args.config, args.checkpoint, device="cpu"))

    def embed() -> None:
        predictor.set_image(photo_rgb)

    def prompt() -> dict[str, Any]:
        masks, scores, _ = predictor.predict(point_coords=points, point_labels=np.array([1]))
        return {"areas": [int(mask.sum()) for mask in masks], "scores": [round(float(s), 4) for s in scores]}

    serve({"embed": embed, "prompt": prompt}, ["torch", "numpy", "sam2"])


if __name__ == "__main__":
    main()
