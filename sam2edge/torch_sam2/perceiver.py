"""EdgeTAM's spatial perceiver: a memory of E*E tokens becomes 512, which later frames attend to.

256 latents read the whole memory, and 256 more one window of it each ("EdgeTAM: On-Device Track Anything Model", Zhou
et al. 2025). Both pass through the same layers.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.layers import attention_for_gpu
from sam2edge.torch_sam2.position import sine_axis, spread

GRID = 16
"""Windows along each side, and the side of the grid that the second half of the tokens forms."""
LATENTS = GRID * GRID
_LAYERS = 2


class _FeedForward(nn.Sequential):
    def __init__(self, width: int) -> None:
        hidden = 4 * width
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
        )


class _Attention(nn.Module):
    """One head; keys and values come from one projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def attend(self, latents: Tensor, x: Tensor, position: Tensor | None = None) -> Tensor:
        """latents (B, N, C) read x (B, T, C); `position` (T, C) is added to keys and to values."""
        k, v = self.to_kv(x).chunk(2, dim=-1)
        if position is not None:
            k, v = k + position, v + position
        if x.shape[1] == 1:
            return self.to_out(v)  # one token: its weight is 1
        return self.to_out(attention_for_gpu(self.to_q(latents)[:, None], k[:, None], v[:, None])[:, 0])


class _CrossAttention(_Attention):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm_x = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)

    def forward(self, latents: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        return self.attend(self.norm_latents(latents), self.norm_x(x), position)


class _SelfAttention(_Attention):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        return self.attend(normed, normed)


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = _CrossAttention(width)
        self.ff = _FeedForward(width)
        self.self_attn = _SelfAttention(width)
        self.self_ff = _FeedForward(width)

    def forward(self, latents: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        latents = latents + self.attn(latents, x, position)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        return latents + self.self_ff(latents)


class SpatialPerceiver(nn.Module):
    """`grid` is the side E of the embedding grid, a multiple of GRID."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(LATENTS, width))
        self.latents_2d = nn.Parameter(torch.randn(LATENTS, width))
        self.layers = nn.ModuleList(_Layer(width) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        self.input_axis: Tensor
        self.register_buffer("input_axis", sine_axis(width // 2, grid), persistent=False)

    def forward(self, memory: Tensor) -> Tensor:
        """memory (K, M, E, E) -> (K, 512, M): 256 tokens of the whole, then 256 of the windows, row by row."""
        count, width, side, _ = memory.shape
        tokens = memory.flatten(2).transpose(1, 2)
        whole = self.latents.expand(count, -1, -1)
        window = side // GRID
        windows = memory.reshape(count, width, GRID, window, GRID, window).permute(0, 2, 4, 3, 5, 1)
        windows = windows.reshape(count * LATENTS, window * window, width)
        parts = self.latents_2d[None, :, None].expand(count, -1, -1, -1).flatten(0, 1)
        position = spread(self.input_axis)
        for layer in self.layers:
            whole = cast(_Layer, layer)(whole, tokens, position)
            parts = cast(_Layer, layer)(parts, windows, None)
        return self.norm(torch.cat((whole, parts.reshape(count, LATENTS, width)), dim=1))


def output_position(width: int) -> Tensor:
    """(512, M) float32: the position code of the outcome; the tokens of the whole have none."""
    grid = spread(sine_axis(width // 2, GRID))
    return F.pad(grid, (0, 0, LATENTS, 0))
