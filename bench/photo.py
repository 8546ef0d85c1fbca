"""Photos on the CPU: python -m bench.photo micro|tiny|cache|everything [--rounds N]

micro: the embedded model on onnxruntime and the whole command, against OpenCV's GrabCut in a box.
tiny: SAM 2.1 tiny at 1024 on torch and onnxruntime, against Meta's release (--meta-python).
cache: a hit of the embeddings cache on a 1280x720 photo against a miss, with proof that a hit preprocesses nothing.
everything: SAM 2.1 tiny at 1024 segments everything by a grid of clicks, against Meta's generator (--meta-python); in
CPU time, a tenth of the rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness import (
    MB_PER_MIB,
    PHOTO,
    Side,
    Target,
    alternate,
    alternate_commands,
    make_parser,
    make_side,
    report,
    run_alone,
    use_cores,
    worker_command,
)
from bench.machine import ROOT
from bench.worker import time_on_cpu

if TYPE_CHECKING:
    import numpy as np

    from sam2edge import ImagePredictor

MICRO, TINY = "sam2/micro", "sam2/hiera_tiny"
OWN, GRABCUT, META = "sam2edge", "GrabCut", "Meta's release"
TORCH, ORT = "sam2edge torch", "sam2edge onnxruntime"
CUP_XY, CUP_XYXY = [300, 300], [75, 20, 480, 385]  # in the photo of examples/
LARGE_WH, LARGE_XY = [1280, 720], [640, 400]
GRID = {"points_per_side": 8, "min_score": 0.5, "min_stability": 0.5}
"""Golden weights give scores around 0.5: with the defaults nothing would be found."""
META_OPTIONS = {
    "points_per_side": "points_per_side",
    "min_score": "pred_iou_thresh",
    "min_stability": "stability_score_thresh",
}

IMPORTS = """
import atexit, sys
atexit.register(lambda: sys.exit("torch was imported") if "torch" in sys.modules else print("no torch"))
from sam2edge.cli.main import main
main(sys.argv[1:])
"""


def main() -> None:
    parser = make_parser(__doc__, rounds=20)
    parser.add_argument("what", choices=("micro", "tiny", "cache", "everything"))
    args = parser.parse_args()
    use_cores(args.cores)
    with tempfile.TemporaryDirectory() as folder:
        measures = {
            "micro": measure_micro,
            "tiny": measure_tiny,
            "cache": measure_cache,
            "everything": measure_everything,
        }
        measures[args.what](args, Path(folder))


def measure_micro(args: argparse.Namespace, work: Path) -> None:
    photo = str(PHOTO)
    own = make_side(OWN, "bench.photo:make_cases", model=MICRO, backend="onnxruntime", photo=photo, point=CUP_XY)
    grabcut = make_side(GRABCUT, "bench.grabcut:make_cases", photo=photo, box=CUP_XYXY)
    segment = ["segment", photo, "--point", ",".join(map(str, CUP_XY)), "--out", str(work), "--force"]
    write = worker_command("bench.grabcut:write_mask", photo=photo, box=CUP_XYXY, out=work / "grabcut.png")
    commands = [
        Side(OWN, [str(Path(sysconfig.get_path("scripts")) / "sam2edge"), *segment]),
        Side(GRABCUT, [*write, "--once"]),
    ]
    alone = alternate([own], {"embed": 5 * args.rounds, "prompt": 10 * args.rounds})
    against = alternate([own, grabcut], {"answer": args.rounds})
    command = alternate_commands(commands, args.rounds)
    looked = subprocess.run([sys.executable, "-c", IMPORTS, *segment], cwd=ROOT, capture_output=True, text=True)
    torch_imports = int("torch" in alone.facts[OWN]["versions"]) + int("no torch" not in looked.stdout)
    peaks_mb = [outcome.facts[OWN]["peak_rss_mib"] * MB_PER_MIB for outcome in (alone, command)]
    report(
        "photo_micro",
        {"alone": alone, "against GrabCut": against, "command": command},
        [
            Target("embed, ms", 150, alone.median_ms("embed", OWN)),
            Target("prompt, ms", 25, alone.median_ms("prompt", OWN)),
            Target("whole command, ms", 2000, command.median_ms("command", OWN)),
            Target("peak memory of the process in use, MB", 250, peaks_mb[0]),
            Target("peak memory of the command, MB", 250, peaks_mb[1]),
            Target("processes that imported torch", 0, torch_imports),
        ],
        {
            "embed and prompt / GrabCut": against.ratio("answer", OWN, GRABCUT),
            "whole command / GrabCut process": command.ratio("command", OWN, GRABCUT),
        },
        {"model": MICRO, "photo_wh": (600, 400), "point": CUP_XY, "box": CUP_XYXY},
    )


def measure_tiny(args: argparse.Namespace, work: Path) -> None:
    checkpoint = prepare_model(TINY, args.checkpoint, work)
    photo = prepare_photo(work / "photo.png", LARGE_WH)
    given: dict[str, Any] = {"checkpoint": checkpoint, "photo": photo, "point": LARGE_XY}
    own: dict[str, Any] = {"location": "bench.photo:make_cases", "model": TINY, "home": work, **given}
    sides = [
        make_side(META, "bench.meta:make_photo_cases", python=args.meta_python, **given),
        make_side(TORCH, backend="torch", **own),
        make_side(ORT, backend="onnxruntime", **own),
    ]
    outcome = alternate(sides, {"embed": args.rounds, "prompt": 4 * args.rounds})
    peaks = {side: facts["peak_rss_mib"] for side, facts in outcome.facts.items()}
    bounds = {("embed", TORCH): 1.0, ("embed", ORT): 0.6, ("prompt", TORCH): 1.0, ("prompt", ORT): 0.6}
    ratios = {(case, side): outcome.ratio(case, side, META) for case, side in bounds}
    report(
        "photo_tiny",
        {"photo_tiny": outcome},
        [
            *(Target(f"{case}: {side} / Meta", most, ratios[case, side]) for (case, side), most in bounds.items()),
            Target("peak memory: onnxruntime / Meta", 0.5, peaks[ORT] / peaks[META]),
        ],
        {f"{case}: {side} / {META}": ratio for (case, side), ratio in ratios.items()},
        {"model": TINY, "image_size": 1024, "photo_wh": LARGE_WH, "weights": name_weights(args.checkpoint)},
    )


def measure_everything(args: argparse.Namespace, work: Path) -> None:
    checkpoint = prepare_model(TINY, args.checkpoint, work)
    photo = prepare_photo(work / "photo.png", LARGE_WH)
    given: dict[str, Any] = {"checkpoint": checkpoint, "photo": photo}
    own = {"location": "bench.photo:make_everything_cases", "model": TINY, "home": work, "options": GRID, **given}
    meta = {META_OPTIONS[name]: value for name, value in GRID.items()}
    sides = [
        make_side(META, "bench.meta:make_everything_cases", python=args.meta_python, options=meta, **given),
        make_side(TORCH, backend="torch", **own),
        make_side(ORT, backend="onnxruntime", **own),
    ]
    outcome = alternate(sides, {"everything": max(1, args.rounds // 10)}, warmup=1)
    ratios = {side: outcome.ratio("everything", side, META) for side in (TORCH, ORT)}
    peaks = {side: facts["peak_rss_mib"] for side, facts in outcome.facts.items()}
    report(
        "photo_everything",
        {"photo_everything": outcome},
        [Target(f"everything, CPU time: {side} / Meta", 0.7, ratio) for side, ratio in ratios.items()],
        {
            **{f"everything, CPU time: {side} / {META}": ratio for side, ratio in ratios.items()},
            **{f"peak memory: {side} / {META}": peaks[side] / peaks[META] for side in (TORCH, ORT)},
        },
        {"model": TINY, "image_size": 1024, "photo_wh": LARGE_WH, "weights": name_weights(args.checkpoint), **GRID},
    )


def measure_cache(args: argparse.Namespace, work: Path) -> None:
    photo = prepare_photo(work / "photo.png", LARGE_WH)
    given: dict[str, Any] = {
        "model": MICRO,
        "backend": "onnxruntime",
        "photo": photo,
        "point": LARGE_XY,
    }  # any model: a hit runs none
    outcome = alternate(
        [make_side(OWN, "bench.photo:make_cases", **given)], {"miss": args.rounds, "hit": 10 * args.rounds}
    )
    work_done = outcome.results["hit"][OWN]
    report(
        "photo_cache",
        {"photo_cache": outcome},
        [
            Target("hit, ms", 3.0, outcome.median_ms("hit", OWN)),
            Target("photos preprocessed during all hits", 0, work_done["preprocessed"]),
            Target("photos encoded during all hits", 0, work_done["encoded"]),
        ],
        {"hit / miss": outcome.median_ms("hit", OWN) / outcome.median_ms("miss", OWN)},
        {"model": MICRO, "photo_wh": LARGE_WH},
    )


def prepare_model(model: str, checkpoint: str | None, work: Path) -> str:
    """The checkpoint, golden unless one is named, with its graphs at 1024 in the store `work`."""
    path = checkpoint or str(work / "golden.pt")
    if checkpoint is None:
        run_alone("bench.prepare:write_checkpoint", model=model, target=path)
    run_alone("bench.prepare:export_graphs", work, model=model, checkpoint=path, size=1024)
    return path


def prepare_photo(target: Path, size_wh: list[int]) -> str:
    run_alone("bench.prepare:resize_photo", source=PHOTO, target=target, size_wh=size_wh)
    return str(target)


def name_weights(checkpoint: str | None) -> str:
    return Path(checkpoint).name if checkpoint else "golden"


def make_cases(
    model: str, backend: str, photo: str, point: list[float], checkpoint: str | None = None
) -> dict[str, Callable[[], Any]]:
    """Embeds past the cache ("embed"), prompts ("prompt"), both ("answer"), and a "hit" and a "miss" of the cache.

    photo is a file, point [x, y] in its pixels. "hit" tells how often preprocessing and the encoder ran during all hits
    so far: never, if all is well.
    """
    import cv2

    from sam2edge import AutoModel

    loaded = AutoModel.from_pretrained(model, backend=backend, checkpoint=checkpoint)
    picture = cv2.imread(photo)
    assert picture is not None, photo
    return make_model_cases(loaded, picture, point)


def make_everything_cases(
    model: str, backend: str, photo: str, checkpoint: str, options: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """ "everything": `segment_everything` of the photo with these options, past the cache, in CPU time."""
    import cv2

    from sam2edge import AutoModel

    loaded = AutoModel.from_pretrained(model, backend=backend, checkpoint=checkpoint)
    loaded.embeddings_cache = None
    picture = cv2.imread(photo)
    assert picture is not None, photo
    return {"everything": lambda: time_on_cpu(lambda: len(loaded.segment_everything(picture, **options)))}


def make_model_cases(model: ImagePredictor, photo: np.ndarray, point: list[float]) -> dict[str, Callable[[], Any]]:
    """As `make_cases`, of a model that is loaded and a photo (H, W, 3) uint8 BGR."""
    from unittest import mock

    import numpy as np

    from sam2edge.imaging.frame import image_to_input

    points = np.array([point])
    embeddings = model.embed_images(photo)  # kept by the cache, for "hit"
    preprocess, encode = _Counter(image_to_input), _Counter(model.backend.encode)
    mock.patch("sam2edge.loaded_model.image_to_input", preprocess).start()
    mock.patch.object(model.backend, "encode", encode).start()
    during_hits = {"preprocessed": 0, "encoded": 0}

    def prompt(found: Any = embeddings) -> dict[str, Any]:
        result = model.segment_images(embeddings=found, point_coordinates=points, point_labels=np.ones(1))[0]
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


class _Counter:
    """A function that counts its calls; unlike a mock it keeps none of the arrays it is called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self._function(*arguments)


if __name__ == "__main__":
    main()
