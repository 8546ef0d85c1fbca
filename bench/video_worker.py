"""sam2edge's tracker as a measured side.

    python -m bench.video_worker --model ID --backend NAME [--checkpoint FILE] --folder DIR --box X1,Y1,X2,Y2

serves "frame" to the harness: the next picture of the folder, tracked; reading the file is not timed, preprocessing
and masks at frame size are.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import cv2

from bench.worker import serve
from sam2edge import AutoModel, VideoTracker

VERSIONS = ("sam2edge", "numpy", "onnxruntime", "torch")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--checkpoint")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--box", required=True)
    args = parser.parse_args()
    frames = [cv2.imread(str(path)) for path in sorted(args.folder.glob("*.jpg"))]
    tracker = VideoTracker(AutoModel.from_pretrained(args.model, backend=args.backend, checkpoint=args.checkpoint))
    tracker.prompt(frames[0], box=[float(v) for v in args.box.split(",")])

    def frame() -> dict[str, Any]:
        result = tracker.track(frames[tracker.frame_index + 1])
        return {"frame": result.frame_index, "area": int(result.masks.sum())}

    used = [name for name in VERSIONS if importlib.util.find_spec(name) is not None]
    serve({"frame": frame}, used, cv2=cv2.__version__, backend=tracker.model.backend_name)


if __name__ == "__main__":
    main()
