"""The peer on a GPU: Meta's release of SAM 2 (`pip install --no-deps sam2==1.1.0`), eager, float32, torch's defaults.

    python -m bench.gpu_meta --checkpoint FILE --photo FILE --point X,Y --clip DIR --box X1,Y1,X2,Y2 [--device cuda]

serves "encode" and "decode" (the networks alone, by device events), "embed" and "prompt" (`set_image` and `predict`,
by the wall clock), "frame" (the next step of `propagate_in_video`; its frames are preprocessed before, and not in its
time), and "memory" (bytes that torch has reserved).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import torchvision_standin
from bench.gpu_clock import TorchClock
from bench.worker import serve

try:
    import torchvision  # noqa: F401
except ImportError:
    torchvision_standin.install()

from sam2.build_sam import build_sam2, build_sam2_video_predictor  # after the stand-in
from sam2.sam2_image_predictor import SAM2ImagePredictor

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--photo", required=True)
    parser.add_argument("--point", required=True, help="X,Y in photo pixels")
    parser.add_argument("--clip", required=True, help="folder of frames, 00000.jpg and on")
    parser.add_argument("--box", required=True, help="X1,Y1,X2,Y2 on the first frame")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    serve(make_cases(args), ["torch", "numpy", "sam2"])


def make_cases(args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    clock = TorchClock(args.device)
    photo_rgb = np.array(Image.open(args.photo).convert("RGB"))
    points = np.array([[float(v) for v in args.point.split(",")]])
    predictor = SAM2ImagePredictor(build_sam2(TINY, args.checkpoint, device=args.device))
    predictor.set_image(photo_rgb)
    size = predictor.model.image_size
    image = torch.zeros(1, 3, size, size, device=args.device)
    coords = torch.full((1, 1, 2), size / 2, device=args.device)
    labels = torch.ones(1, 1, dtype=torch.int32, device=args.device)
    steps: Iterator[Any] = iter(())

    def decode() -> None:
        sparse, dense = predictor.model.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=None)
        predictor.model.sam_mask_decoder(
            image_embeddings=predictor._features["image_embed"],
            image_pe=predictor.model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=[level[-1].unsqueeze(0) for level in predictor._features["high_res_feats"]],
        )

    def prompt() -> list[float]:
        _, scores, _ = predictor.predict(point_coords=points, point_labels=np.array([1]))
        return [round(float(score), 4) for score in scores]

    def frame() -> int:
        nonlocal steps
        found = next(steps, None)
        if found is None:
            steps = _steps(args)
            found = next(steps)
        return int((found[2] > 0).sum())  # on the host: the work is done

    def embed() -> None:
        predictor.set_image(photo_rgb)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def memory() -> dict[str, int]:
        for call in (embed, prompt, frame):
            call()
        return {"held_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0}

    return {
        "encode": lambda: clock.time(lambda: predictor.model.forward_image(image)),
        "decode": lambda: clock.time(decode),
        "embed": embed,
        "prompt": prompt,
        "frame": frame,
        "memory": memory,
    }


def _steps(args: argparse.Namespace) -> Iterator[Any]:
    """Tracking, from the frame after the prompted one on."""
    # Without postprocessing of masks: filling holes needs an extension for CUDA.
    predictor = build_sam2_video_predictor(TINY, args.checkpoint, device=args.device, apply_postprocessing=False)
    with torch.inference_mode():
        state = predictor.init_state(args.clip)
        box = np.array([float(v) for v in args.box.split(",")], np.float32)
        predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, box=box)
        steps = predictor.propagate_in_video(state)
        next(steps)
    return steps


if __name__ == "__main__":
    main()
