"""sam2edge as a measured side.

    python -m bench.sam2edge_side --model ID --backend NAME [--checkpoint FILE] --photo FILE --point X,Y

serves "embed" (`embed_images` past the cache), "prompt" (`segment_images`, three masks), and "hit" and "miss" of the
embeddings cache to the harness. "hit" tells how often preprocessing and encoder ran meanwhile: never, if all is well.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from bench.worker import serve
from sam2edge import AutoModel, ImagePredictor, predictor

VERSIONS = ("sam2edge", "numpy", "onnxruntime", "torch")


def main() -> None:
    chosen = _arguments()
    photo = cv2.imread(chosen.photo)
    assert photo is not None, chosen.photo
    model = AutoModel.from_pretrained(chosen.model, backend=chosen.backend, checkpoint=chosen.checkpoint)
    cases = make_cases(model, photo, np.array([[float(v) for v in chosen.point.split(",")]]))
    used = [name for name in VERSIONS if importlib.util.find_spec(name) is not None]
    serve(cases, used, cv2=cv2.__version__, backend=model.backend_name)


def make_cases(model: ImagePredictor, photo: np.ndarray, points: np.ndarray) -> dict[str, Callable[[], Any]]:
    """photo (H, W, 3) uint8 BGR, points (N, 2) in photo pixels, all of them foreground."""
    embeddings = model.embed_images(photo)  # kept by the cache, for "hit"
    counts = _count_work(model)

    def prompt() -> dict[str, Any]:
        found = model.segment_images(embeddings=embeddings, point_coordinates=points, point_labels=np.ones(len(points)))
        areas = [int(mask.sum()) for mask in found[0].masks]
        return {"areas": areas, "scores": [round(float(s), 4) for s in found[0].scores]}

    def embed() -> None:
        model.embed_images(photo, use_embeddings_cache=False)

    def miss() -> None:
        assert model.embeddings_cache is not None
        model.embeddings_cache.clear()
        model.embed_images(photo)

    def hit() -> dict[str, int]:
        before = dict(counts)
        found = model.embed_images(photo)
        assert found[0].key == embeddings[0].key
        return {name: counts[name] - before[name] for name in counts}

    return {"embed": embed, "prompt": prompt, "miss": miss, "hit": hit}


def _count_work(model: ImagePredictor) -> dict[str, int]:
    """Counts, from now on, each time that a photo is preprocessed and that the encoder runs."""
    counts = {"preprocessed": 0, "encoded": 0}
    preprocess, encode = predictor.image_to_input, model.backend.encode

    def counting_preprocess(*arguments: Any) -> Any:
        counts["preprocessed"] += 1
        return preprocess(*arguments)

    def counting_encode(*arguments: Any) -> Any:
        counts["encoded"] += 1
        return encode(*arguments)

    predictor.image_to_input = counting_preprocess
    model.backend.encode = counting_encode  # type: ignore[method-assign]
    return counts


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
