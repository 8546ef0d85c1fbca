"""The feature pyramid between trunk and heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.hiera import Hiera
from sam2edge.variants import Variant


class _Lateral(nn.Module):
    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, d_model, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FpnNeck(nn.Module):
    """Stage outputs -> features at strides 4, 8 and 16, each (B, d_model, ., .).

    Only stride 16 receives the coarser level (SAM 2's fpn_top_down_levels 2 and 3); stride 32 itself is dropped.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Lateral(c, variant.d_model) for c in reversed(variant.stage_dims))

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        stride_4, stride_8, stride_16, stride_32 = stages
        coarse = F.interpolate(self.convs[0](stride_32), scale_factor=2.0, mode="nearest")
        return self.convs[3](stride_4), self.convs[2](stride_8), self.convs[1](stride_16) + coarse


class ImageEncoder(nn.Module):
    """Trunk and neck: image (B, 3, S, S) -> features at strides 4, 8, 16."""

    def __init__(self, variant: Variant, image_size: int) -> None:
        super().__init__()
        self.trunk = Hiera(variant, image_size)
        self.neck = FpnNeck(variant)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.neck(self.trunk(image))
