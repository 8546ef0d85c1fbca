"""One model's times and memory, in a process of its own: python -m sam2edge.cli.bench_worker MODEL BACKEND ROUNDS"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sam2edge.automodel import AutoModel
from sam2edge.errors import Sam2EdgeError
from sam2edge.machine.device import peak_memory_bytes
from sam2edge.tracker import VideoTracker

_WARM_UP = 2


def main(model_id: str, backend: str, rounds: int) -> None:
    """Prints one JSON object: what was measured, or {"model", "error"}."""
    try:
        print(json.dumps(_measure(model_id, backend, rounds)))
    except Sam2EdgeError as error:
        print(json.dumps({"model": model_id, "error": str(error)}))


def _measure(model_id: str, backend: str, rounds: int) -> dict[str, object]:
    photo = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    started = time.perf_counter()
    with AutoModel.from_pretrained(model_id, backend=backend, tracking=True) as model:
        loaded = time.perf_counter() - started
        embedding = model.embed_images(photo)
        click: dict[str, Any] = {"point_coordinates": np.array([[640, 360]]), "point_labels": np.array([1])}
        embed = _time(lambda: model.embed_images(photo, use_embeddings_cache=False), rounds)
        prompt = _time(lambda: model.segment_images(embeddings=embedding, **click), rounds)
        try:
            tracker = VideoTracker(model)
            tracker.prompt(photo, box=[320, 180, 960, 540])
            frame = _time(lambda: tracker.track(photo), rounds)
        except Sam2EdgeError:  # the graphs of the memory are not there
            frame = None
        return {
            "model": model.variant.model_id,
            "backend": model.backend_name,
            "precision": model.backend.precision,
            "image_size": model.image_size,
            "load_seconds": round(loaded, 3),
            "embed": embed,
            "prompt": prompt,
            "frame": frame,
            "peak_bytes": peak_memory_bytes(),
        }


def _time(call: Callable[[], object], rounds: int) -> dict[str, float]:
    for _ in range(_WARM_UP):
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return {"median_ms": round(float(np.median(times)), 3), "p99_ms": round(float(np.percentile(times, 99)), 3)}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
