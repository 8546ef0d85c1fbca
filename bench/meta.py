"""The peer: Meta's release of SAM 2 (`pip install --no-deps sam2==1.1.0`), eager, float32, torch's defaults.

Its environment needs torch, sam2, hydra-core, iopath, pillow and tqdm, and neither torchvision nor sam2edge.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.worker import Timed, time_on_cpu

TINY = "configs/sam2.1/sam2.1_hiera_t.yaml"


def make_photo_cases(checkpoint: str, photo: str, point: list[float], device: str = "cpu") -> dict[str, Any]:
    """ "embed" (`set_image`), "prompt" (`predict`, three masks), and the networks alone: "encode", "decode"."""
    install_torchvision()
    from PIL import Image
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    photo_rgb, points = np.array(Image.open(photo).convert("RGB")), np.array([point])
    predictor = SAM2ImagePredictor(build_sam2(TINY, checkpoint, device=device))
    predictor.set_image(photo_rgb)
    network, size = predictor.model, predictor.model.image_size
    image = torch.zeros(1, 3, size, size, device=device)
    coords = torch.full((1, 1, 2), size / 2, device=device)
    labels = torch.ones(1, 1, dtype=torch.int32, device=device)

    def decode() -> None:
        sparse, dense = network.sam_prompt_encoder(points=(coords, labels), boxes=None, masks=None)
        network.sam_mask_decoder(
            image_embeddings=predictor._features["image_embed"],
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=[level[-1].unsqueeze(0) for level in predictor._features["high_res_feats"]],
        )

    def embed() -> None:
        predictor.set_image(photo_rgb)
        if device == "cuda":
            torch.cuda.synchronize()

    def prompt() -> dict[str, Any]:
        masks, scores, _ = predictor.predict(point_coords=points, point_labels=np.array([1]))
        return {"areas": [int(mask.sum()) for mask in masks], "scores": [round(float(s), 4) for s in scores]}

    return {
        "embed": embed,
        "prompt": prompt,
        "encode": lambda: time_on_device(lambda: network.forward_image(image), device),
        "decode": lambda: time_on_device(decode, device),
    }


def make_everything_cases(checkpoint: str, photo: str, options: dict[str, Any]) -> dict[str, Any]:
    """ "everything": `SAM2AutomaticMaskGenerator.generate` with these options, in CPU time."""
    install_torchvision()
    from PIL import Image
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.build_sam import build_sam2

    photo_rgb = np.array(Image.open(photo).convert("RGB"))
    generator = SAM2AutomaticMaskGenerator(build_sam2(TINY, checkpoint, device="cpu"), **options)
    return {"everything": lambda: time_on_cpu(lambda: len(generator.generate(photo_rgb)))}


def make_video_cases(checkpoint: str, clip: str, box: list[float], device: str = "cpu") -> dict[str, Any]:
    """ "frame": the next step of `propagate_in_video`, and from the clip's end on the first again.

    `init_state` reads and preprocesses all frames before, so that a frame's time holds neither.
    """
    install_torchvision()
    from sam2.build_sam import build_sam2_video_predictor

    # Without postprocessing of masks: filling holes needs an extension for CUDA.
    predictor = build_sam2_video_predictor(TINY, checkpoint, device=device, apply_postprocessing=False)
    steps: Iterator[Any] = iter(())

    def start() -> Iterator[Any]:
        state = predictor.init_state(clip)
        predictor.add_new_points_or_box(state, frame_idx=0, obj_id=1, box=np.array(box, np.float32))
        steps: Iterator[Any] = predictor.propagate_in_video(state)
        next(steps)  # the prompted frame
        return steps

    @torch.inference_mode()
    def frame() -> dict[str, int]:
        nonlocal steps
        found = next(steps, None)
        if found is None:
            steps = start()
            found = next(steps)
        return {"frame": found[0], "area": int((found[2] > 0).sum())}  # on the host: the work is done

    return {"frame": frame}


def make_gpu_cases(
    checkpoint: str, photo: str, point: list[float], clip: str, box: list[float], device: str
) -> dict[str, Any]:
    """All of both, and "memory": bytes of device memory that torch has reserved at most."""
    cases = make_photo_cases(checkpoint, photo, point, device) | make_video_cases(checkpoint, clip, box, device)

    def memory() -> dict[str, int]:
        for name in ("embed", "prompt", "frame"):
            cases[name]()
        return {"held_bytes": torch.cuda.max_memory_reserved() if device == "cuda" else 0}

    return {**cases, "memory": memory}


def time_on_device(work: Callable[[], Any], device: str) -> Timed | None:
    """Milliseconds of what `work` queues on the current stream, by the device's own events; None on the CPU, where the
    wall clock does."""
    with torch.inference_mode():
        if device == "cpu":
            work()
            return None
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return Timed(begin.elapsed_time(end))


class _ToTensor:
    """(H, W, C) uint8 -> (C, H, W) float32 in 0..1."""

    def __call__(self, image: Any) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class _Resize(nn.Module):
    """(C, H, W) -> (C, *size), bilinear and antialiased, as torchvision resizes tensors."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        resized = F.interpolate(image[None], size=self.size, mode="bilinear", align_corners=False, antialias=True)
        return resized[0]


class _Normalize(nn.Module):
    """(x - mean) / std for each channel of (C, H, W)."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, dtype=image.dtype)[:, None, None]
        std = torch.tensor(self.std, dtype=image.dtype)[:, None, None]
        return (image - mean) / std


def _box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _batched_nms(boxes: Tensor, scores: Tensor, _: Tensor, iou_threshold: float) -> Tensor:
    """Of boxes of one category; (N, 4), (N,) -> the indices kept, the highest score first."""
    kept: list[int] = []
    areas = _box_area(boxes)
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        low, high = torch.maximum(boxes[kept, :2], boxes[index, :2]), torch.minimum(boxes[kept, 2:], boxes[index, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        if not (shared / (areas[kept] + areas[index] - shared) > iou_threshold).any():
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def install_torchvision() -> None:
    """Where torchvision does not load, puts the transforms and operators that `sam2` imports in its place."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        vars(transforms).update(ToTensor=_ToTensor, Resize=_Resize, Normalize=_Normalize)
        ops, boxes = ModuleType("torchvision.ops"), ModuleType("torchvision.ops.boxes")
        vars(boxes).update(batched_nms=_batched_nms, box_area=_box_area)
        vars(package).update(transforms=transforms, ops=ops)
        sys.modules.update({module.__name__: module for module in (package, transforms, ops, boxes)})
