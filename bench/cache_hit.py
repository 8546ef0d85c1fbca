"""A hit of the embeddings cache on a 1280x720 photo against a miss, with proof that a hit preprocesses nothing.

python -m bench.cache_hit [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from bench.harness import PHOTO, ROOT, Side, Target, alternate, python_module, report, statistics_ms, use_cores

MODEL = "sam2/hiera_micro"  # what a hit costs does not depend on the model
OWN = "sam2edge"
PHOTO_WH = (1280, 720)


def main() -> None:
    parser = argparse.ArgumentParser(description="A cache hit against a miss.")
    parser.add_argument("--rounds", type=int, default=20, help="timed misses; ten times as many hits")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    use_cores(args.cores)
    loads = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        photo = str(Path(folder) / "photo.png")
        subprocess.run(
            python_module("bench.prepare", "photo", str(PHOTO), photo, *map(str, PHOTO_WH)), cwd=ROOT, check=True
        )
        side = Side(
            OWN, python_module("bench.sam2edge_worker", "--model", MODEL, "--photo", photo, "--point", "640,400")
        )
        outcome = alternate([side], {"miss": args.rounds, "hit": 10 * args.rounds})
    times = {case: statistics_ms(outcome.times_ms[case][OWN])["median_ms"] for case in ("hit", "miss")}
    work = outcome.results["hit"][OWN]
    report(
        "cache_hit",
        {"cache_hit": outcome},
        [
            Target("hit, ms", 3.0, times["hit"]),
            Target("photos preprocessed during all hits", 0, work["preprocessed"]),
            Target("photos encoded during all hits", 0, work["encoded"]),
        ],
        {"hit / miss": times["hit"] / times["miss"]},
        {"model": MODEL, "photo_wh": PHOTO_WH, "cores": args.cores},
        loads,
    )


if __name__ == "__main__":
    main()
