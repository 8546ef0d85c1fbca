"""A camera's frame to the model's input, on one core: python -m bench.resize [--rounds N]

1920x1080 uint8 to (1, 3, 1024, 1024) float32, normalised: as `image_to_input` does it, as torch's antialiased bilinear
interpolation does it (what Meta's transform calls; the two agree to 1e-5), and with OpenCV's INTER_AREA, which is
another filter and whose masks differ from Meta's. Times are the processor's, so that other work counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bench.harness import Target, alternate, make_parser, make_side, report, use_cores
from bench.worker import Timed

FRAME_WH, SIZE = (1920, 1080), 1024
OURS, TORCH, AREA = "sam2edge", "torch", "OpenCV INTER_AREA"
CASE = "1080p to 1024"


def main() -> None:
    args = make_parser(__doc__, rounds=60).parse_args()
    use_cores(1)
    sides = [make_side(name, "bench.resize:make_cases", way=name) for name in (OURS, TORCH, AREA)]
    outcome = alternate(sides, {CASE: args.rounds}, warmup=5)
    ratios = {f"{OURS} / {peer}": outcome.ratio(CASE, OURS, peer) for peer in (TORCH, AREA)}
    targets = [
        Target(f"{OURS}, median ms", 8.0, outcome.median_ms(CASE, OURS)),
        Target(f"{OURS} / {TORCH}", 1.0, ratios[f"{OURS} / {TORCH}"]),
    ]
    report("resize", {"resize": outcome}, targets, ratios, {"frame_wh": FRAME_WH, "image_size": SIZE, "cores": 1})


def make_cases(way: str) -> dict[str, Callable[[], Timed]]:
    import cv2

    from sam2edge.imaging.frame import MEAN_RGB, STD_RGB, image_to_input

    cv2.setNumThreads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (*FRAME_WH[::-1], 3), np.uint8)
    mean, std = np.array(MEAN_RGB, np.float32)[:, None, None], np.array(STD_RGB, np.float32)[:, None, None]

    def shrink() -> np.ndarray:
        small = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return (cv2.dnn.blobFromImage(small, 1 / 255, swapRB=True) - mean) / std

    if way == TORCH:
        return {CASE: partial(_time, _make_torch_call(pixels, mean, std))}
    return {CASE: partial(_time, shrink if way == AREA else partial(image_to_input, pixels, "bgr", SIZE))}


def _make_torch_call(pixels: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)

    def interpolate() -> object:
        unit = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(2, 0, 1)[None].float() / 255
        resized = torch.nn.functional.interpolate(unit, (SIZE, SIZE), mode="bilinear", antialias=True)
        return (resized - torch.from_numpy(mean)) / torch.from_numpy(std)

    return interpolate


def _time(call: Callable[[], object]) -> Timed:
    started = time.process_time()
    call()
    return Timed((time.process_time() - started) * 1e3)


if __name__ == "__main__":
    main()
