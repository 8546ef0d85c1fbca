"""The three torchvision transforms that Meta's release of SAM 2 imports, for machines where torchvision does not load.

`install()` before importing `sam2`. Only the peer of a comparison uses it, never sam2edge.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ToTensor:
    """(H, W, C) uint8 -> (C, H, W) float32 in 0..1."""

    def __call__(self, image: Any) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Resize(nn.Module):
    """(C, H, W) -> (C, *size), bilinear and antialiased, as torchvision resizes tensors."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        resized = F.interpolate(image[None], size=self.size, mode="bilinear", align_corners=False, antialias=True)
        return resized[0]


class Normalize(nn.Module):
    """(x - mean) / std for each channel of (C, H, W)."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, dtype=image.dtype)[:, None, None]
        std = torch.tensor(self.std, dtype=image.dtype)[:, None, None]
        return (image - mean) / std


def install() -> None:
    """Puts the stand-in where `import torchvision` finds it."""
    package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    vars(transforms).update(ToTensor=ToTensor, Resize=Resize, Normalize=Normalize)
    vars(package).update(transforms=transforms)
    sys.modules.update({"torchvision": package, "torchvision.transforms": transforms})
