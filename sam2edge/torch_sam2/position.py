"""Position tables: each depends on the resolution alone, so it is made once and baked into the graphs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sine_axis(channels: int, side: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of the cells along one axis: (side, channels) float32, over (0, 2*pi] (DETR's normalised form)."""
    position = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
    index = torch.arange(channels, dtype=torch.float32)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / channels)
    angle = position[:, None] / period
    return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)


def rotary_axis(channels: int, side: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Rotary tables of the cells along one axis: (cos, sin), each (side, channels) float32, an angle a channel pair.

    An axis has half of the channels of the whole embedding (RoPE-ViT, axial).
    """
    frequency = 1.0 / theta ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels)
    angle = torch.outer(torch.arange(side, dtype=torch.float32), frequency).repeat_interleave(2, dim=1)
    return angle.cos(), angle.sin()


def spread(axis: Tensor, x_first: bool = False) -> Tensor:
    """The table of one axis, (side, C) -> that of the square grid, (side*side, 2C): y's half first, or x's.

    Graphs keep the tables of the axes, which are small, and every runtime folds this when it loads one.
    """
    side, channels = axis.shape
    by_row = axis[:, None].expand(side, side, channels)
    by_column = axis[None].expand(side, side, channels)
    halves = (by_column, by_row) if x_first else (by_row, by_column)
    return torch.cat(halves, dim=2).reshape(side * side, 2 * channels)


def sine_1d(position: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of scalar positions: (N,) -> (N, channels), sines first, then cosines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=position.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    angle = position[:, None] / period
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each channel pair (2i, 2i+1) of (..., N, C) by the angle in the tables (N, C)."""
    pairs = x.unflatten(-1, (x.shape[-1] // 2, 2))
    if x.dtype == torch.float32 and not torch.onnx.is_in_onnx_export():
        # One pass; graphs have no complex numbers, and bfloat16 (in training) has none either.
        turn = torch.complex(cos[:, ::2], sin[:, ::2])
        return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2)
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def bicubic_matrix(source: int, target: int) -> Tensor:
    """The matrix (target, source) that enlarges one axis as torch's bicubic interpolation does.

    Interpolation is linear and separable, so two such matrices do what `F.interpolate` does, in a form every
    compiler folds.
    """
    eye = torch.eye(source)[None, :, :, None]
    return F.interpolate(eye, size=(target, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T.contiguous()


class Positioned(nn.Module):
    """A module with a table of positions that depends on its weights alone, so that inference computes it once."""

    _baked: Tensor | None = None

    def position(self) -> Tensor:
        """The table, computed from the weights as they are."""
        raise NotImplementedError

    def current_position(self) -> Tensor:
        """The table, from `bake_position` if that was called since the weights were moved or trained."""
        return self.position() if self._baked is None else self._baked

    def bake_position(self) -> None:
        """Computes the positions once, for inference with fixed weights; call again after weights change."""
        with torch.no_grad():
            self._baked = self.position().contiguous()

    def train(self, mode: bool = True) -> Positioned:
        self._baked = None
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]  # torch's own signature
        self._baked = None
        return super()._apply(fn, recurse)
