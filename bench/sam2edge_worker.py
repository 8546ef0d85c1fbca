"""sam2edge as a measured side.

    python -m bench.sam2edge_worker --model ID --backend NAME [--checkpoint FILE] --photo FILE --point X,Y

serves to the harness: "embed" (`embed_images` past the cache), "prompt" (`segment_images`, three masks), "answer" (the
two together), and "hit" and "miss" of the embeddings cache. "hit" tells how often preprocessing and the encoder ran
during all hits so far: never, if all is well.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any
from unittest import mock

import cv2
import numpy as np

from bench.worker import serve
from sam2edge import AutoModel, ImagePredictor, predictor
from sam2edge.imaging.frame import image_to_input

VERSIONS = ("sam2edge", "numpy", "onnxruntime", "torch")


def main() -> None:
    args = _arguments()
    photo = cv2.imread(args.photo)
    assert photo is not None, args.photo
    model = AutoModel.from_pretrained(args.model, backend=args.backend, checkpoint=args.checkpoint)
    cases = make_cases(model, photo, np.array([[float(v) for v in args.point.split(",")]]))
    used = [name for name in VERSIONS if importlib.util.find_spec(name) is not None]
    serve(cases, used, cv2=cv2.__version__, backend=model.backend_name)


class _Counted:
    """A function that counts its calls; unlike a mock it keeps none of the arrays it is called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self._function(*arguments)


def make_cases(model: ImagePredictor, photo: np.ndarray, points: np.ndarray) -> dict[str, Callable[[], Any]]:
    """photo (H, W, 3) uint8 BGR, points (N, 2) in photo pixels, all of them foreground."""
    embeddings = model.embed_images(photo)  # kept by the cache, for "hit"
    preprocess, encode = _Counted(image_to_input), _Counted(model.backend.encode)
    mock.patch.object(predictor, "image_to_input", preprocess).start()
    mock.patch.object(model.backend, "encode", encode).start()
    during_hits = {"preprocessed": 0, "encoded": 0}

    def prompt(found: Any = embeddings) -> dict[str, Any]:
        result = model.segment_images(embeddings=found, point_coordinates=points, point_labels=np.ones(len(points)))[0]
        areas = [int(mask.sum()) for mask in result.masks]
        return {"areas": areas, "scores": [round(float(s), 4) for s in result.scores]}

    def embed() -> None:
        model.embed_images(photo, use_embeddings_cache=False)

    def answer() -> dict[str, Any]:
        return prompt(model.embed_images(photo, use_embeddings_cache=False))

    def miss() -> None:
        assert model.embeddings_cache is not None
        model.embeddings_cache.clear()
        model.embed_images(photo)

    def hit() -> dict[str, int]:
        before = preprocess.calls, encode.calls
        found = model.embed_images(photo)
        assert found[0].key == embeddings[0].key
        during_hits["preprocessed"] += preprocess.calls - before[0]
        during_hits["encoded"] += encode.calls - before[1]
        return during_hits

    return {"embed": embed, "prompt": prompt, "answer": answer, "miss": miss, "hit": hit}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--checkpoint")
    parser.add_argument("--photo", required=True)
    parser.add_argument("--point", required=True, help="X,Y in photo pixels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
