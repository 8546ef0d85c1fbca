"""The peer: Meta's release of SAM 2 (`pip install --no-deps sam2==1.1.0`), its video predictor on the CPU.

    python -m bench.meta_video --checkpoint FILE --folder DIR --box X1,Y1,X2,Y2

serves "frame" to the harness: the next step of `propagate_in_video`. All frames are read and preprocessed before, by
`init_state`, so that its time holds neither, where sam2edge's holds preprocessing. What it needs: see meta_release.py.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from bench import torchvision_standin
from bench.meta_release import TINY
from bench.worker import serve

torchvision_standin.install()

from sam2.build_sam import build_sam2_video_predictor  # noqa: E402  # after the stand-in


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--config", default=TINY)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--box", required=True)
    args = parser.parse_args()
    # Without postprocessing of masks: filling holes needs an extension for CUDA.
    predictor = build_sam2_video_predictor(args.config, args.checkpoint, device="cpu", apply_postprocessing=False)
    state = predictor.init_state(args.folder)
    box = np.array([float(v) for v in args.box.split(",")], np.float32)
    predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, box=box)
    steps = predictor.propagate_in_video(state)
    next(steps)  # the prompted frame

    def frame() -> dict[str, Any]:
        with torch.inference_mode():
            number, _, masks = next(steps)
        return {"frame": number, "area": int((masks > 0).sum())}

    serve({"frame": frame}, ["torch", "numpy", "sam2"])


if __name__ == "__main__":
    main()
