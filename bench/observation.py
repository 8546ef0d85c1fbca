"""What counting costs: timing a call for `model.stats()` against a prompt of the embedded model, and `stats()` itself.

python -m bench.observation [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from bench.harness import Side, Target, alternate, python_module, report, statistics_ms, use_cores
from bench.worker import serve

OWN = "sam2edge"
CALLS = 1000
"""Timed blocks in one measured call, which alone would be too short to time."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of counting.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--side", action="store_true", help="be the measured process")
    args = parser.parse_args()
    if args.side:
        serve(_cases(), ["sam2edge", "numpy", "onnxruntime"])
        return
    use_cores(args.cores)
    loads = os.getloadavg()
    side = Side(OWN, python_module("bench.observation", "--side"))
    outcome = alternate([side], {"counting": args.rounds, "prompt": args.rounds, "stats": args.rounds})
    median = {case: statistics_ms(times[OWN])["median_ms"] for case, times in outcome.times_ms.items()}
    ratio = median["counting"] / CALLS / median["prompt"]
    report(
        "observation",
        {"observation": outcome},
        [
            Target("counting a call / a prompt of the embedded model", 0.001, ratio),
            Target("stats() and its text, ms", 20, median["stats"]),
        ],
        {"counting a call / a prompt": ratio},
        {"calls_counted_per_case": CALLS, "cores": args.cores},
        loads,
    )


def _cases() -> dict[str, Callable[[], Any]]:
    import numpy as np

    from sam2edge import AutoModel

    model = AutoModel.from_pretrained("sam2/hiera_micro", backend="onnxruntime")
    embedding = model.embed_images(np.zeros((480, 640, 3), np.uint8))[0]

    def count() -> None:
        for _ in range(CALLS):
            model.count_call("counted", time.perf_counter())

    return {
        "counting": count,
        "prompt": lambda: len(model.segment_images(embeddings=embedding, boxes=np.array([9, 9, 99, 99]))),
        "stats": lambda: len(model.stats().to_prometheus()),
    }


if __name__ == "__main__":
    main()
