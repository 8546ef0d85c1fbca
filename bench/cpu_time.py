"""CPU time of each model on torch, one core, random weights: python -m bench.cpu_time [MODEL ...]

A photo: its embedding and three masks for a click. A frame: the embedding conditioned on seven memories, a mask and a
new memory. Each model at its own image size, in a process of its own, one call that counts after one that does not.
CPU time in place of the wall clock's: it says the same on a machine that others share. Models that are not named keep
what was measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

from bench.harness import RESULTS, report, run_alone, use_cores

MODELS = (
    "sam2/micro",
    "sam2/edgetam",
    "sam2/efficienttam_ti_512x512",
    "sam2/efficienttam_ti",
    "sam2/efficienttam_ti_1",
    "sam2/efficienttam_s_512x512",
    "sam2/efficienttam_s",
    "sam2/efficienttam_s_1",
    "sam2/hiera_tiny",
    "sam2/hiera_small",
    "sam2/hiera_b_plus",
    "sam2/hiera_large",
)
PEER = "sam2/hiera_tiny"
TARGET = RESULTS / "cpu_time.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    args = parser.parse_args()
    use_cores(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    measured: dict[str, Any] = {}
    for model in args.models:
        measured[model] = {"model": model, **run_alone("bench.cpu_time:measure", model=model)["result"]}
        print(measured[model], flush=True)
    earlier = json.loads(TARGET.read_text())["measured"]["models"] if TARGET.exists() else []
    measured = {row["model"]: row for row in earlier} | measured
    rows = [measured[model] for model in MODELS if model in measured]
    peer = next((row for row in rows if row["model"] == PEER), None)
    ratios = {} if peer is None else {f"frame: {r['model']} / {PEER}": r["frame_ms"] / peer["frame_ms"] for r in rows}
    report("cpu_time", {}, [], ratios, {"backend": "torch", "weights": "random", "cores": 1}, {"models": rows})


def measure(model: str) -> dict[str, float]:
    """Milliseconds of CPU time, "photo_ms" and "frame_ms"."""
    import numpy as np
    import torch

    from sam2edge.backends.base import MemoryInputs
    from sam2edge.backends.torch import TorchBackend
    from sam2edge.torch_sam2.model import Sam2
    from sam2edge.variants import find_variant

    torch.set_num_threads(1)
    torch.manual_seed(0)
    variant = find_variant(model)
    backend = TorchBackend(Sam2(variant, variant.image_size).eval(), torch.device("cpu"))
    size, random = variant.image_size, np.random.default_rng(0)
    image = random.normal(size=(1, 3, size, size)).astype(np.float32)
    click, label = np.full((1, 1, 2), size / 2, np.float32), np.ones((1, 1), np.int32)
    logits = np.zeros((1, size // 4, size // 4), np.float32)
    features = backend.encode(image)
    memory = backend.encode_memories(features, logits, [1.0], [True])[0]
    count = variant.num_mask_slots
    pointers = random.normal(size=(count, variant.d_model)).astype(np.float32)
    ages = np.arange(count, dtype=np.int32)
    remembered = MemoryInputs([memory] * count, ages, pointers, (ages / count).astype(np.float32))
    backend.decode(features, click, label)

    def track() -> None:
        found = backend.encode(image)
        backend.decode_each([backend.attend_memory(found, remembered)])
        backend.encode_memories(found, logits, [1.0], [False])

    return {
        "photo_ms": _time(lambda: backend.decode(backend.encode(image), click, label)),
        "frame_ms": _time(track),
    }


def _time(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return round((time.process_time() - started) * 1e3, 1)


if __name__ == "__main__":
    main()
