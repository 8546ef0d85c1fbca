"""Memory: python -m bench.memory table|promises [options]

table: what each combination of model, image size and CPU backend takes, in a fresh process each: an embed and a prompt
    on a 1920x1080 photo, then four objects tracked, and memory attention with every slot in use. Weights are golden:
    memory does not depend on them. Of the repeats the largest figure counts. Each row goes into results/memory.json at
    once, in place of an older one, and sam2edge/assets/memory_estimate.json, which "auto" picks by, is written from
    that; a combination that was never measured is estimated there from the largest smaller model that was, and says so.
promises: whether what "auto" picks takes no more memory than it promised. A store is made with weights of the models
    named and graphs of the first of them; for each amount of memory "auto" picks from that and the embedded model, for
    photos and for a video, and the pick is used to the full.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness import RESULTS, Target, format_json, report, run_alone
from bench.machine import describe_machine
from sam2edge.machine.sysfs import read_fields_kb
from sam2edge.selection.memory_estimate import PARAMETERS, TRACKED_OBJECTS
from sam2edge.store.paths import ASSETS
from sam2edge.variants import find_variant

if TYPE_CHECKING:
    from sam2edge import ImagePredictor, VideoTracker

MODELS = ("micro", "tiny", "small", "base_plus", "large")
SIZES = (512, 768, 1024)
BACKENDS = ("onnxruntime", "torch")
RESULT = RESULTS / "memory.json"
TABLE = ASSETS / "memory_estimate.json"
FIGURES = (
    "library_bytes",
    "weights_bytes",
    "embedding_bytes",
    "bank_bytes",
    "images_peak_bytes",
    "tracking_peak_bytes",
)
MIB = 1 << 20
FRAME_HW = (1080, 1920)
CLIP_FRAMES = 9
"""The prompted one, six whose memories are kept, and two with all slots in use."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "promises"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="of the table; default: the usual ones and the model's own"
    )
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), help="of the table")
    parser.add_argument("--repeats", type=int, default=2, help="of the table")
    parser.add_argument("--mib", type=int, nargs="+", default=[256, 700, 1400, 2600, 5000], help="of the promises")
    args = parser.parse_args()
    if args.what == "promises":
        measure_promises(args)
        return
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            for row in _measure_model(model, args, Path(folder)):
                print(json.dumps(row), flush=True)
                _keep_row(row)


def _measure_model(model: str, args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of one model, whose checkpoint and graphs are made for the while."""
    model_id = f"sam2.1_hiera_{model}"
    shipped = ASSETS / f"{find_variant(model_id).name}.safetensors"
    checkpoint = shipped if model == "micro" else folder / f"{model}.pt"
    if model != "micro":
        run_alone("bench.prepare:write_checkpoint", model=model_id, target=checkpoint)
    for size in args.sizes or _sizes_of(model):
        for backend in args.backends:
            given: dict[str, Any] = {"model": model_id, "size": size, "backend": backend}
            if backend == "onnxruntime":
                run_alone("bench.prepare:export_graphs", folder, model=model_id, checkpoint=checkpoint, size=size)
            elif model != "micro":
                given["checkpoint"] = checkpoint
            runs = [run_alone("bench.memory:measure_one", folder, **given) for _ in range(args.repeats)]
            figures = {name: max(run["result"][name] for run in runs) for name in FIGURES}
            row = {"size": model, "image_size": size, "backend": backend, "precision": "fp32", **figures}
            facts = {"tracked_objects": TRACKED_OBJECTS, "versions": runs[0]["versions"]}
            yield {**row, "repeats": len(runs), **facts}
            shutil.rmtree(folder / "graphs", ignore_errors=True)  # those of a large model fill a small disk


def _keep_row(row: dict[str, Any]) -> None:
    """Puts a row into the result file, and writes the table anew."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = [kept for kept in old if _key(kept) != _key(row)] + [{**row, "date": date}]
    rows.sort(key=lambda r: (MODELS.index(r["size"]), r["image_size"], r["backend"]))
    machine = describe_machine()
    RESULT.write_text(format_json({"bench": "memory", "date": date, "machine": machine, "rows": rows}) + "\n")
    source = f"bench/results/memory.json, {date[:10]}, {machine['cores_used']} cores of {machine['cpu']}"
    lines = ",\n  ".join(json.dumps(r) for r in _fill_table(rows))
    TABLE.write_text(f'{{\n "source": {json.dumps(source)},\n "rows": [\n  {lines}\n ]\n}}\n')


def _fill_table(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for every combination; those that were not measured are marked as estimated."""
    measured = {_key(row): row for row in rows}
    for model in MODELS:
        for image_size in _sizes_of(model):
            for backend in BACKENDS:
                key = (model, image_size, backend)
                smaller = [m for m in MODELS[: MODELS.index(model)] if (m, *key[1:]) in measured]
                if key in measured:
                    row = measured[key]
                    yield {name: row[name] for name in ("size", "image_size", "backend", "precision", *FIGURES)}
                elif smaller:
                    yield _estimate(measured[smaller[-1], image_size, backend], model)


def _sizes_of(model: str) -> list[int]:
    return sorted({*SIZES, find_variant(f"hiera_{model}").image_size})


def _estimate(row: dict[str, Any], model: str) -> dict[str, Any]:
    """The row of a smaller model, its weights scaled by file size, its scratch memory by the width of the trunk."""
    smaller, larger = find_variant(f"hiera_{row['size']}"), find_variant(f"hiera_{model}")
    weights = row["weights_bytes"] * PARAMETERS[model] / PARAMETERS[row["size"]]
    width = larger.embed_dim / smaller.embed_dim
    loaded = row["library_bytes"] + row["weights_bytes"]
    peaks = {
        name: int(row["library_bytes"] + weights + width * (row[name] - loaded))
        for name in ("images_peak_bytes", "tracking_peak_bytes")
    }
    kept = {name: row[name] for name in ("image_size", "backend", "precision", *FIGURES)}
    return {"size": model, **kept, "weights_bytes": int(weights), **peaks, "estimated_from": row["size"]}


def _key(row: dict[str, Any]) -> tuple[str, int, str]:
    return (row["size"], row["image_size"], row["backend"])


def measure_one(model: str, size: int, backend: str, checkpoint: str | None = None) -> dict[str, int]:
    """What memory each step took. All bytes count from the process as it was before the backend's library was loaded,
    with numpy, OpenCV and sam2edge in it."""
    import importlib

    import numpy as np

    from sam2edge import AutoModel
    from sam2edge.backends.registry import BACKENDS as KNOWN

    frame = _draw_frame()
    before = read_status("VmRSS")
    importlib.import_module(KNOWN[backend].location.partition(":")[0])
    library = read_status("VmRSS")
    loaded = AutoModel.from_pretrained(model, image_size=size, backend=backend, device="cpu", checkpoint=checkpoint)
    with_weights = read_status("VmRSS")
    embedding = loaded.embed_images(frame)[0]
    point = np.array([[FRAME_HW[1] / 2, FRAME_HW[0] / 2]])
    loaded.segment_images(embeddings=embedding, point_coordinates=point, point_labels=np.ones(1))
    images_peak = read_status("VmHWM")
    bank_bytes = _fill_memory(loaded, embedding.features, frame)
    return {
        "library_bytes": library - before,
        "weights_bytes": with_weights - library,
        "embedding_bytes": embedding.nbytes,
        "bank_bytes": bank_bytes,
        "images_peak_bytes": images_peak - before,
        "tracking_peak_bytes": read_status("VmHWM") - before,
    }


def _draw_frame() -> Any:
    """Noise; OpenCV's threads and buffers are there before the count starts."""
    import cv2
    import numpy as np

    frame = np.random.default_rng(0).integers(0, 256, (*FRAME_HW, 3), np.uint8)
    cv2.resize(frame, (64, 64))
    return frame


def _fill_memory(model: ImagePredictor, features: object, frame: Any) -> int:
    """Tracks four objects to a second frame, then attends to memory with every slot in use.

    Returns the bytes of what one object can remember. Tracking until the slots fill by themselves would take a large
    model minutes.
    """
    import numpy as np

    from sam2edge import VideoTracker
    from sam2edge.backends.base import MemoryInputs
    from sam2edge.contract import NUM_POINTER_SLOTS
    from sam2edge.tracking.memory_bank import MAX_COND_FRAMES

    tracker = VideoTracker(model)
    _prompt_objects(tracker, frame)
    tracker.track(frame)
    variant, backend = model.variant, model.backend
    slots = variant.num_mask_slots
    mask = np.ones((model.image_size // 4,) * 2, np.float32)
    memory = backend.encode_memory(features, mask, 1.0, True)
    recalled = MemoryInputs(
        [memory] * slots,
        np.arange(slots, dtype=np.int32),
        np.zeros((NUM_POINTER_SLOTS, variant.d_model), np.float32),
        np.linspace(0, 1, NUM_POINTER_SLOTS, dtype=np.float32),
    )
    conditioned = [backend.attend_memory(features, recalled) for _ in range(TRACKED_OBJECTS)]
    backend.decode_each(conditioned)
    # What sam2edge/tracking/memory_bank.py keeps at most: conditioning frames, and those before the one at hand.
    pointer_bytes = (MAX_COND_FRAMES + NUM_POINTER_SLOTS - 1) * variant.d_model * 4
    return int((MAX_COND_FRAMES + slots - 1) * memory.nbytes + pointer_bytes)


def _prompt_objects(tracker: VideoTracker, frame: Any) -> None:
    """Prompts as many objects on the frame as a video's memory is promised for, side by side."""
    for number in range(TRACKED_OBJECTS):
        left = 100 + 400 * number
        tracker.prompt(None if number else frame, object_id=number + 1, box=[left, 100, left + 300, 900])


def read_status(name: str) -> int:
    """A figure of this process: VmRSS now, VmHWM at its largest (unlike ru_maxrss without what a parent once had)."""
    return read_fields_kb(Path("/proc/self/status"))[name]


def measure_promises(args: argparse.Namespace) -> None:
    used: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        _fill_store([model for model in args.models if model != "micro"], Path(folder))
        for mib in args.mib:
            for work in ("photos", "video"):
                answer = run_alone("bench.memory:use_pick", folder, work=work, cap_bytes=mib * MIB)
                used.append({"work": work, **answer["result"]})
                print(json.dumps(used[-1]), flush=True)
    report(
        "memory_promises",
        {},
        [
            Target("taken / promised, the highest", 1.0, max(r["taken_bytes"] / r["promised_bytes"] for r in used)),
            Target("promised / usable, the highest", 1.0, max(r["promised_bytes"] / r["cap_bytes"] for r in used)),
        ],
        {},
        {"models": args.models, "mib": args.mib},
        picks=used,
    )


def _fill_store(models: list[str], home: Path) -> None:
    for number, model in enumerate(models):
        variant = find_variant(f"sam2.1_hiera_{model}")
        assert variant.checkpoint is not None
        name = variant.checkpoint.file_name
        run_alone("bench.prepare:store_checkpoint", home, model=variant.name, file_name=name)
        if number == 0:
            checkpoint = home / "checkpoints" / name
            given = {"model": variant.name, "checkpoint": checkpoint, "size": variant.image_size}
            run_alone("bench.prepare:export_graphs", home, **given)


def use_pick(work: str, cap_bytes: int) -> dict[str, Any]:
    """Picks by `select`, loads the same by `from_pretrained`, and works: more photos than the cache holds, or a video
    with four objects until every memory slot is in use. Bytes count from the process as it was before."""
    import numpy as np

    from sam2edge import AutoModel, VideoTracker
    from sam2edge.selection.select import Constraints, select

    frame = _draw_frame()
    before = read_status("VmRSS")
    choice = select(Constraints(tracking=work == "video"), cap_bytes)
    assert choice is not None and choice.cache_bytes is not None
    needs = choice.picked.needs
    embeddings = 0 if work == "video" else choice.cache_bytes // needs.embedding_bytes
    if work == "video":
        tracker = VideoTracker.from_pretrained(max_memory=cap_bytes)
        _prompt_objects(tracker, frame)
        for shift in range(1, CLIP_FRAMES):
            tracker.track(np.roll(frame, shift, axis=1))
    else:
        model = AutoModel.from_pretrained(max_memory=cap_bytes)
        for shift in range(embeddings + 1):
            model.segment_images(np.roll(frame, shift, axis=1), boxes=np.array([100, 100, 900, 900]))
    # A tracker keeps the frame at hand alone, which no cache holds.
    cached = needs.embedding_bytes if work == "video" else choice.cache_bytes
    return {
        "pick": str(choice.picked),
        "source": needs.source,
        "cap_bytes": cap_bytes,
        "promised_bytes": needs.total_bytes + cached,
        "taken_bytes": read_status("VmHWM") - before - 2 * frame.nbytes,  # the program's own frames
        "embeddings_cached": embeddings,
    }


if __name__ == "__main__":
    main()
