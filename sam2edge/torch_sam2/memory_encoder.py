"""A frame's embedding and its mask -> the memory that later frames attend to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.layers import LayerNorm2d
from sam2edge.torch_sam2.linear import apply_linear
from sam2edge.variants import Variant


class MaskDownsampler(nn.Module):
    """(K, 1, S, S) -> (K, D, S/16, S/16) in four strided convolutions."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for _ in range(4):
            layers += [nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1), LayerNorm2d(4 * channels), nn.GELU()]
            channels *= 4
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels, d_model, kernel_size=1))

    def forward(self, mask: Tensor) -> Tensor:
        return self.encoder(mask)


class FuserBlock(nn.Module):
    """ConvNeXt block with a learned residual scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * apply_linear(self.pwconv2, apply_linear(self.pwconv1, y, F.gelu))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    def __init__(self, channels: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(variant.d_model)
        self.pix_feat_proj = nn.Conv2d(variant.d_model, variant.d_model, kernel_size=1)
        self.fuser = Fuser(variant.d_model)
        self.out_proj = nn.Conv2d(variant.d_model, variant.memory_dim, kernel_size=1)

    def forward(self, vision_features: Tensor, mask: Tensor) -> Tensor:
        """vision_features (K or 1, D, E, E), mask (K, 1, S, S) in -10..10 -> memory (K, M, E, E)."""
        return self.out_proj(self.fuser(self.pix_feat_proj(vision_features) + self.mask_downsampler(mask)))
