"""What more objects cost: time of a frame and memory against 1, 2, 4, 8 and 16 objects, and what batching brings.

    python -m bench.tracking_objects [--model ID] [--checkpoint FILE] [--size PIXELS] [--backends torch onnxruntime]

Objects are coins of a drawn clip, all prompted on its first frame; times from the tenth frame on, when memory is full.
"batched" is the torch backend's decoder and memory encoder on all objects at once against one after another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.harness import report, use_cores
from bench.tracking_clip import DrawnClip
from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.contract import PADDING

COUNTS = (1, 2, 4, 8, 16)
WARMUP = 9
BATCHED = 8


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    loads = os.getloadavg()
    measured: dict[str, Any] = {}
    for backend in args.backends:
        model = AutoModel.from_pretrained(
            args.model, backend=backend, checkpoint=args.checkpoint, image_size=args.size, device=args.device
        )
        measured[backend] = {"frames": [_measure(model, count, args.rounds) for count in COUNTS]}
        if backend == "torch":
            measured[backend]["batched"] = _batched(model, args.rounds)
    _print(measured)
    settings = {"model": args.model, "image_size": args.size, "device": args.device, "cores": args.cores}
    report("tracking_objects", {}, [], _ratios(measured), settings, loads, measured)


def _measure(model: ImagePredictor, count: int, rounds: int) -> dict[str, float]:
    clip, tracker = DrawnClip((640, 360), count), VideoTracker(model)
    for coin in range(count):
        tracker.prompt(clip.frame(0), coin, box=clip.box(0, coin))
    times = []
    for number in range(1, 1 + WARMUP + rounds):
        frame = clip.frame(number)
        start = time.perf_counter()
        tracker.track(frame)
        times.append((time.perf_counter() - start) * 1e3)
    return {
        "objects": count,
        "median_ms": round(statistics.median(times[WARMUP:]), 2),
        "ms_an_object": round(statistics.median(times[WARMUP:]) / count, 2),
        "memory_bytes_an_object": tracker.memory_nbytes // count,
    }


def _batched(model: ImagePredictor, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for BATCHED objects, one after another and together, called in turn."""
    backend, random = model.backend, np.random.default_rng(0)
    size = model.image_size
    features = backend.encode(random.standard_normal((1, 3, size, size)).astype(np.float32))
    masks = random.standard_normal((BATCHED, size, size)).astype(np.float32)
    scores, flags = [1.0] * BATCHED, [False] * BATCHED
    prompt = np.zeros((1, 1, 2), np.float32), np.full((1, 1), PADDING, np.int32)
    cases: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "decoder": (
            lambda: [backend.decode(features, *prompt) for _ in range(BATCHED)],
            lambda: backend.decode_each([features] * BATCHED),
        ),
        "memory encoder": (
            lambda: [backend.encode_memory(features, mask, 1.0, False) for mask in masks],
            lambda: backend.encode_memories(features, masks, scores, flags),
        ),
    }
    return {
        what: {name: _median_ms(call, rounds) for name, call in zip(("alone", "together"), pair, strict=True)}
        for what, pair in cases.items()
    }


def _median_ms(call: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(1 + rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times[1:]), 2)


def _ratios(measured: dict[str, Any]) -> dict[str, float]:
    found = {}
    for backend, what in measured.items():
        first, last = what["frames"][0], what["frames"][-1]
        found[f"{backend}: an object of {last['objects']} / a lone one"] = last["ms_an_object"] / first["ms_an_object"]
        for part, times in what.get("batched", {}).items():
            found[f"{backend}: {part}, {BATCHED} objects together / alone"] = times["together"] / times["alone"]
    return found


def _print(measured: dict[str, Any]) -> None:
    print("| backend | objects | ms a frame | ms an object | memory bytes an object |\n|---|---:|---:|---:|---:|")
    for backend, what in measured.items():
        for row in what["frames"]:
            print(f"| {backend} | " + " | ".join(str(value) for value in row.values()) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What more objects cost.")
    parser.add_argument("--model", default="sam2/hiera_micro")
    parser.add_argument("--checkpoint")
    parser.add_argument("--size", type=int, help="side of the model's input in pixels")
    parser.add_argument("--backends", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--device", help="cpu or cuda, for the torch backend")
    parser.add_argument("--rounds", type=int, default=10, help="timed frames for each number of objects")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
