"""Tracking on the CPU: python -m bench.video tiny|edgetam|objects|memory [options]

tiny: SAM 2.1 tiny at 1024 on torch and onnxruntime, against Meta's release (--meta-python): one object, a drawn clip of
    1280x720, times of a frame from the tenth on, when every memory slot is in use.
edgetam: a frame of EdgeTAM against one of SAM 2.1 tiny, both at 1024 with golden weights, on torch and onnxruntime.
objects: a frame's time and an object's memory against 1, 2, 4, 8 and 16 objects, and what batching brings on torch.
memory: resident memory over thousands of frames while objects come and go: it must stay what it was after 500.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.clip import DrawnClip, read_clip
from bench.harness import Target, alternate, make_parser, make_side, report, run_alone, statistics_ms, use_cores
from bench.photo import META, MICRO, ORT, TINY, TORCH, name_weights, prepare_model
from sam2edge import AutoModel, ImagePredictor, VideoTracker
from sam2edge.contract import PADDING
from sam2edge.store.paths import ASSETS

SIZE_WH = (1280, 720)
EDGETAM = "sam2/edgetam"
FIRST_TIMED = 9
"""Frames that are tracked before: one memory of the prompted frame and six of tracked ones are in use by then."""
COUNTS, BATCHED = (1, 2, 4, 8, 16), 8
SETTLED = 500
"""Frames after which memory has to be flat."""
SAMPLE, CHANGE, COINS = 100, 40, 4
"""Frames between two looks at memory, and between two changes of who is followed; how many there are."""


def main() -> None:
    parser = make_parser(__doc__, rounds=20)
    parser.add_argument("what", choices=("tiny", "edgetam", "objects", "memory"))
    parser.add_argument("--model", default=MICRO, help="of objects")
    parser.add_argument(
        "--size", type=int, help="side of the model's input in pixels; default: its own, for memory 128"
    )
    parser.add_argument(
        "--backends", nargs="+", default=["torch", "onnxruntime"], help="of objects; memory takes the last"
    )
    parser.add_argument("--frames", type=int, default=10_000, help="of memory")
    args = parser.parse_args()
    if args.frames <= SETTLED + SAMPLE:
        parser.error(
            f"--frames {args.frames}: expected more than {SETTLED + SAMPLE}, so that there is something to compare"
        )
    use_cores(args.cores)
    with tempfile.TemporaryDirectory() as folder:
        {"tiny": measure_tiny, "edgetam": measure_edgetam, "objects": measure_objects, "memory": measure_memory}[
            args.what
        ](args, Path(folder))


def measure_tiny(args: argparse.Namespace, work: Path) -> None:
    checkpoint = prepare_model(TINY, args.checkpoint, work)
    clip = str(work / "clip")
    run_alone("bench.clip:write_clip", folder=clip, frames=1 + FIRST_TIMED + args.rounds, size_wh=SIZE_WH)
    given: dict[str, Any] = {"checkpoint": checkpoint, "clip": clip, "box": DrawnClip(SIZE_WH).box(0, 0)}
    own: dict[str, Any] = {"location": "bench.video:make_cases", "model": TINY, "home": work, **given}
    sides = [
        make_side(META, "bench.meta:make_video_cases", python=args.meta_python, **given),
        make_side(TORCH, backend="torch", **own),
        make_side(ORT, backend="onnxruntime", **own),
    ]
    outcome = alternate(sides, {"frame": args.rounds}, warmup=FIRST_TIMED)
    tails = {side: statistics_ms(outcome.times_ms["frame"][side]) for side in (TORCH, ORT)}
    report(
        "video_tiny",
        {"video_tiny": outcome},
        [
            Target("frame: torch / Meta", 0.8, outcome.ratio("frame", TORCH, META)),
            Target("frame: onnxruntime / Meta", 0.6, outcome.ratio("frame", ORT, META)),
            *(Target(f"p99 / median, {side}", 1.5, t["p99_ms"] / t["median_ms"]) for side, t in tails.items()),
        ],
        {f"frame: {side} / {META}": outcome.ratio("frame", side, META) for side in (TORCH, ORT)},
        {
            "model": TINY,
            "image_size": 1024,
            "frame_wh": SIZE_WH,
            "objects": 1,
            "frames_before": FIRST_TIMED,
            "weights": name_weights(args.checkpoint),
        },
    )


def measure_edgetam(args: argparse.Namespace, work: Path) -> None:
    clip = str(work / "clip")
    run_alone("bench.clip:write_clip", folder=clip, frames=1 + FIRST_TIMED + args.rounds, size_wh=SIZE_WH)
    sides = []
    pairs: dict[str, list[str]] = {"torch": [], "onnxruntime": []}
    for model in (EDGETAM, TINY):
        home = work / model.rpartition("/")[2]
        home.mkdir()
        given: dict[str, Any] = {"checkpoint": prepare_model(model, None, home), "clip": clip, "home": home}
        given["box"] = DrawnClip(SIZE_WH).box(0, 0)
        for backend, names in pairs.items():
            names.append(f"{model} {backend}")
            sides.append(make_side(names[-1], "bench.video:make_cases", model=model, backend=backend, **given))
    outcome = alternate(sides, {"frame": args.rounds}, warmup=FIRST_TIMED)
    ratios = {f"frame: {one} / {other}": outcome.ratio("frame", one, other) for one, other in pairs.values()}
    report(
        "video_edgetam",
        {"video_edgetam": outcome},
        [Target(what, 0.25, value) for what, value in ratios.items()],
        ratios,
        {"image_size": 1024, "frame_wh": SIZE_WH, "objects": 1, "frames_before": FIRST_TIMED, "weights": "golden"},
    )


def make_cases(model: str, backend: str, clip: str, box: list[float], checkpoint: str) -> dict[str, Callable[[], Any]]:
    loaded = AutoModel.from_pretrained(model, backend=backend, checkpoint=checkpoint)
    return make_model_cases(loaded, clip, box)


def make_model_cases(model: ImagePredictor, clip: str, box: list[float]) -> dict[str, Callable[[], Any]]:
    """ "frame": the next picture of the folder, tracked, and from the clip's end on the first again.

    Reading the file is not timed, preprocessing and masks at frame size are.
    """
    frames, tracker = read_clip(clip), VideoTracker(model)

    def frame() -> dict[str, int]:
        if tracker.frame_index + 1 in (0, len(frames)):
            tracker.reset()
            tracker.prompt(frames[0], box=box)
        result = tracker.track(frames[tracker.frame_index + 1])
        return {"frame": result.frame_index, "area": int(result.masks.sum())}

    return {"frame": frame}


def measure_objects(args: argparse.Namespace, work: Path) -> None:
    measured: dict[str, Any] = {}
    for backend in args.backends:
        model = AutoModel.from_pretrained(args.model, backend=backend, checkpoint=args.checkpoint, image_size=args.size)
        measured[backend] = {"frames": [_track_objects(model, count, args.rounds) for count in COUNTS]}
        if backend == "torch":
            measured[backend]["batched"] = _compare_batches(model, args.rounds)
    ratios = {}
    for backend, what in measured.items():
        first, last = what["frames"][0], what["frames"][-1]
        ratios[f"{backend}: an object of {last['objects']} / a lone one"] = last["ms_an_object"] / first["ms_an_object"]
        for part, times in what.get("batched", {}).items():
            ratios[f"{backend}: {part}, {BATCHED} objects together / alone"] = times["together"] / times["alone"]
    report("video_objects", {}, [], ratios, {"model": args.model, "image_size": args.size}, measured)


def _track_objects(model: ImagePredictor, count: int, rounds: int) -> dict[str, float]:
    """Objects are coins of a drawn clip, all prompted on its first frame."""
    clip, tracker = DrawnClip((640, 360), count), VideoTracker(model)
    for coin in range(count):
        tracker.prompt(clip.frame(0), coin, box=clip.box(0, coin))
    times = []
    for number in range(1, 1 + FIRST_TIMED + rounds):
        frame = clip.frame(number)
        start = time.perf_counter()
        tracker.track(frame)
        times.append((time.perf_counter() - start) * 1e3)
    median_ms = statistics.median(times[FIRST_TIMED:])
    return {
        "objects": count,
        "median_ms": round(median_ms, 2),
        "ms_an_object": round(median_ms / count, 2),
        "memory_bytes_an_object": tracker.memory_nbytes // count,
    }


def _compare_batches(model: ImagePredictor, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for BATCHED objects, one after another and together, called in turn."""
    backend, random = model.backend, np.random.default_rng(0)
    size = model.image_size
    features = backend.encode(random.standard_normal((1, 3, size, size)).astype(np.float32))
    masks = random.standard_normal((BATCHED, size // 4, size // 4)).astype(np.float32)
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


def measure_memory(args: argparse.Namespace, work: Path) -> None:
    """The embedded model at a small size, so that it ends in minutes; device memory where the backend knows it."""
    backend, size = args.backends[-1], args.size or 128
    if backend == "onnxruntime":
        checkpoint = next(ASSETS.glob("*.safetensors"))
        run_alone("bench.prepare:export_graphs", work, model=MICRO, checkpoint=checkpoint, size=size)
    os.environ["SAM2EDGE_HOME"] = str(work)
    samples = _track_for_long(backend, size, args.frames)
    flat = [sample for sample in samples if sample["frame"] >= SETTLED]
    highest = max(flat, key=lambda sample: sample["resident_mib"])
    ratio = highest["resident_mib"] / flat[0]["resident_mib"]
    report(
        "video_memory",
        {},
        [Target(f"most resident memory after frame {SETTLED} / at frame {SETTLED}", 1.02, ratio)],
        {},
        {"model": MICRO, "image_size": size, "backend": backend, "frames": args.frames, "changed_every": CHANGE},
        {"samples": len(samples), "settled": flat[0], "highest": highest, "last": samples[-1]},
    )


def _track_for_long(backend: str, size: int, frames: int) -> list[dict[str, float]]:
    tracker = VideoTracker.from_pretrained(MICRO, backend=backend, image_size=size)
    clip = DrawnClip((320, 240), COINS)
    tracker.prompt(clip.frame(0), 0, box=clip.box(0, 0))
    samples = []
    for number in range(1, frames):
        tracker.track(clip.frame(number))
        if number % CHANGE == 0:
            _change_objects(tracker, clip, number)
        if number % SAMPLE == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident_mib = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)
            memory = {"frame": number, "resident_mib": resident_mib, "objects": len(tracker.object_ids)}
            samples.append({**memory, "memory_bytes": tracker.memory_nbytes})
            print(json.dumps(samples[-1]), flush=True)  # a run that is ended early has told something
    return samples


def _change_objects(tracker: VideoTracker, clip: DrawnClip, number: int) -> None:
    """One coin after another joins; then the oldest goes before the next comes, and one is corrected in between."""
    turn = number // CHANGE
    coin = turn % COINS
    if coin in tracker.object_ids:
        tracker.remove_object(coin)
    elif turn % 3 and tracker.object_ids:
        coin = tracker.object_ids[0]
    tracker.prompt(None, coin, box=clip.box(number, coin))


if __name__ == "__main__":
    main()
