"""Position tables: each depends on the resolution alone, so it is made once and baked into the graphs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sine_position(channels: int, size_hw: tuple[int, int], temperature: float = 10000.0) -> Tensor:
    """Sine position embedding (1, channels, H, W) float32: first half of the channels y, second x.

    Positions run over (0, 2*pi] (DETR's normalised form).
    """
    height, width = size_hw
    half = channels // 2
    y = torch.arange(1, height + 1, dtype=torch.float32) / (height + 1e-6) * (2 * math.pi)
    x = torch.arange(1, width + 1, dtype=torch.float32) / (width + 1e-6) * (2 * math.pi)
    index = torch.arange(half, dtype=torch.float32)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def waves(position: Tensor) -> Tensor:
        angle = position[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y_waves = waves(y)[:, None, :].expand(height, width, half)
    x_waves = waves(x)[None, :, :].expand(height, width, half)
    return torch.cat((y_waves, x_waves), dim=2).permute(2, 0, 1)[None].contiguous()


def sine_1d(position: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of scalar positions: (N,) -> (N, channels), sines first, then cosines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=position.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    angle = position[:, None] / period
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def rotary_tables(channels: int, size_hw: tuple[int, int], theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Axial rotary embedding as real tables: (cos, sin), each (H*W, channels) float32, one angle a channel pair.

    The first half of the pairs turns with x, the second with y (RoPE-ViT, axial).
    """
    height, width = size_hw
    frequency = 1.0 / theta ** (torch.arange(0, channels, 4, dtype=torch.float32)[: channels // 4] / channels)
    cell = torch.arange(height * width)
    x = (cell % width).float()
    y = torch.div(cell, width, rounding_mode="floor").float()
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=1)
    angle = angle.repeat_interleave(2, dim=1)
    return angle.cos(), angle.sin()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each channel pair (2i, 2i+1) of (..., N, C) by the angle in the tables (N, C)."""
    pairs = x.unflatten(-1, (x.shape[-1] // 2, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def bicubic_matrix(source: int, target: int) -> Tensor:
    """The matrix (target, source) that enlarges one axis as torch's bicubic interpolation does.

    Interpolation is linear and separable, so two such matrices do what `F.interpolate` does, in a form every
    compiler folds.
    """
    eye = torch.eye(source)[None, :, :, None]
    return F.interpolate(eye, size=(target, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T.contiguous()
