"""Conditions the current frame's embedding on the memories of earlier frames."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.linear import apply_linear
from sam2edge.torch_sam2.pooled_attention import PooledAttention
from sam2edge.torch_sam2.position import rotary_axis, sine_axis, spread
from sam2edge.torch_sam2.rotary_attention import KeyGrids, RotaryAttention
from sam2edge.variants import Variant


class MemoryAttentionLayer(nn.Module):
    def __init__(self, variant: Variant) -> None:
        super().__init__()
        d = variant.d_model
        self.self_attn = RotaryAttention(d, d)
        if variant.pooling == "none":
            self.cross_attn_image = RotaryAttention(d, variant.memory_dim)
        else:
            self.cross_attn_image = PooledAttention(d, variant.memory_dim, variant.pooling)
        self.linear1 = nn.Linear(d, variant.memory_mlp_dim)
        self.linear2 = nn.Linear(variant.memory_mlp_dim, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d)

    def forward(
        self,
        x: Tensor,
        memory_key: Tensor,
        memory: Tensor,
        cos: Tensor,
        sin: Tensor,
        grids: KeyGrids,
        key_mask: Tensor | None,
    ) -> Tensor:
        own = self.norm1(x)
        x = x + self.self_attn(own, own, own, cos, sin, KeyGrids(1, 0, cos, sin))
        x = x + self.cross_attn_image(self.norm2(x), memory_key, memory, cos, sin, grids, key_mask)
        return x + apply_linear(self.linear2, apply_linear(self.linear1, self.norm3(x), F.relu))


class MemoryAttention(nn.Module):
    def __init__(self, variant: Variant, image_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(variant) for _ in range(variant.memory_layers))
        self.norm = nn.LayerNorm(variant.d_model)
        grid = image_size // 16
        cos, sin = rotary_axis(variant.d_model // 2, grid)
        self.rotary_cos_axis: Tensor
        self.rotary_sin_axis: Tensor
        self.frame_position_axis: Tensor
        self.register_buffer("rotary_cos_axis", cos, persistent=False)
        self.register_buffer("rotary_sin_axis", sin, persistent=False)
        self.register_buffer("frame_position_axis", sine_axis(variant.d_model // 2, grid), persistent=False)
        # A perceiver's grid of tokens counts its own cells from 0, not scaled to the frame's.
        self.plain = variant.memory_latents // 2
        key_cos, key_sin = rotary_axis(variant.d_model // 2, math.isqrt(self.plain)) if self.plain else (cos, sin)
        self.key_cos_axis: Tensor
        self.key_sin_axis: Tensor
        self.register_buffer("key_cos_axis", key_cos, persistent=False)
        self.register_buffer("key_sin_axis", key_sin, persistent=False)

    def forward(
        self, frame: Tensor, memory: Tensor, memory_pos: Tensor, count: int, key_mask: Tensor | None = None
    ) -> Tensor:
        """frame (K, E*E, D); memory, memory_pos (K, T, M), of T tokens the first those of `count` memories.

        key_mask (K, 1, T): 0 for tokens in use, MASKED_OUT for empty slots; None: all in use. Returns (K, E*E, D).
        """
        cos, sin = spread(self.rotary_cos_axis, x_first=True), spread(self.rotary_sin_axis, x_first=True)
        key_cos, key_sin = spread(self.key_cos_axis, x_first=True), spread(self.key_sin_axis, x_first=True)
        grids = KeyGrids(count, self.plain, key_cos, key_sin)
        position = spread(self.frame_position_axis)
        x = frame + 0.1 * position  # the published factor of the position at the input
        keys = memory + memory_pos
        for layer in self.layers:
            x = layer(x, keys, memory, cos, sin, grids, key_mask)
        return self.norm(x)
