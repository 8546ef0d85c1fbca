"""The embedded model, sam2/hiera_micro, on onnxruntime and two cores, against OpenCV's GrabCut.

    python -m bench.micro [--rounds N]

Measures an embed, a prompt, both together against GrabCut in a box on the same photo, and the whole command
`sam2edge segment` from process start to written mask against a process that does GrabCut.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from bench.harness import (
    MB_PER_MIB,
    PHOTO,
    ROOT,
    Outcome,
    Side,
    Target,
    alternate,
    alternate_commands,
    python_module,
    report,
    statistics_ms,
    use_cores,
)

MODEL = "sam2/hiera_micro"
OWN, GRABCUT = "sam2edge", "GrabCut"
POINT, BOX = "300,300", "75,20,480,385"  # the cup in the photo of examples/

IMPORTS = """
import atexit, sys
atexit.register(lambda: sys.exit("torch was imported") if "torch" in sys.modules else print("no torch"))
from sam2edge.cli.main import main
main(sys.argv[1:])
"""


def main() -> None:
    args = _arguments()
    use_cores(args.cores)
    loads = os.getloadavg()
    photo = str(PHOTO)
    own = Side(OWN, python_module("bench.sam2edge_worker", "--model", MODEL, "--photo", photo, "--point", POINT))
    grabcut = Side(GRABCUT, python_module("bench.grabcut_worker", photo, BOX))
    with tempfile.TemporaryDirectory() as folder:
        segment = ["segment", photo, "--point", POINT, "--out", folder]
        commands = [
            Side(OWN, [str(Path(sysconfig.get_path("scripts")) / "sam2edge"), *segment]),
            Side(GRABCUT, [*grabcut.command, "--out", str(Path(folder) / "grabcut.png")]),
        ]
        outcomes = {
            "alone": alternate([own], {"embed": 5 * args.rounds, "prompt": 10 * args.rounds}),
            "against GrabCut": alternate([own, grabcut], {"answer": args.rounds}),
            "command": alternate_commands(commands, args.rounds),
        }
        torch_imports = _torch_imports(segment, outcomes["alone"])
    report(
        "micro",
        outcomes,
        _targets(outcomes, torch_imports),
        {
            "embed and prompt / GrabCut": outcomes["against GrabCut"].ratio("answer", OWN, GRABCUT),
            "whole command / GrabCut process": outcomes["command"].ratio("command", OWN, GRABCUT),
        },
        {"model": MODEL, "image_size": 512, "photo_wh": (600, 400), "point": POINT, "box": BOX, "cores": args.cores},
        loads,
    )


def _targets(outcomes: dict[str, Outcome], torch_imports: int) -> list[Target]:
    def median(run: str, case: str) -> float:
        return float(statistics_ms(outcomes[run].times_ms[case][OWN])["median_ms"])

    peaks_mib = [outcomes[run].facts[OWN]["peak_rss_mib"] for run in ("alone", "command")]
    return [
        Target("embed, ms", 150, median("alone", "embed")),
        Target("prompt, ms", 25, median("alone", "prompt")),
        Target("whole command, ms", 2000, median("command", "command")),
        Target("peak memory of the process in use, MB", 250, peaks_mib[0] * MB_PER_MIB),
        Target("peak memory of the command, MB", 250, peaks_mib[1] * MB_PER_MIB),
        Target("processes that imported torch", 0, torch_imports),
    ]


def _torch_imports(segment: list[str], outcome: Outcome) -> int:
    """How many of two processes imported torch: the measured side, and the command, run once more to look."""
    done = subprocess.run([sys.executable, "-c", IMPORTS, *segment], cwd=ROOT, capture_output=True, text=True)
    return int("torch" in outcome.facts[OWN]["imported"]) + int("no torch" not in done.stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The embedded model against OpenCV's GrabCut.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
