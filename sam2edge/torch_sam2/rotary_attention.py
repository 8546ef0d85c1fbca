"""Attention with rotary positions, to a frame's own cells and to the memories of others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sam2edge.torch_sam2.chunked_attention import chunked_attention
from sam2edge.torch_sam2.layers import attention, attention_for_gpu
from sam2edge.torch_sam2.linear import apply_linear
from sam2edge.torch_sam2.position import rotate_pairs

MAX_EXPORTED_SCORES = 2**25
"""Attention scores that a tiled graph holds at once: 128 MiB in float32, a quarter of all at 1024 pixels."""

CHUNKED_FROM = 1024
"""Queries from which on `chunked_attention` beats torch's kernel on a CPU: by a third at 4,096."""


class KeyGrids(NamedTuple):
    """How a sequence of keys begins: with `memories` memories, each of `plain` tokens and then a grid that is rotated.

    cos, sin (cells, D): tables of the grid. Keys after the memories are not rotated.
    """

    memories: int
    plain: int
    cos: Tensor
    sin: Tensor

    def rotate(self, keys: Tensor) -> Tensor:
        """keys (K, T, D), with the grids turned."""
        tokens = self.plain + self.cos.shape[0]
        parts = keys[:, : self.memories * tokens].unflatten(1, (self.memories, tokens))
        turned = rotate_pairs(parts[:, :, self.plain :], self.cos, self.sin)
        if self.plain:
            turned = torch.cat((parts[:, :, : self.plain], turned), dim=2)
        rest = keys[:, self.memories * tokens :]
        return torch.cat((turned.flatten(1, 2), rest), dim=1) if rest.shape[1] else turned.flatten(1, 2)


class RotaryAttention(nn.Module):
    """Single-head attention with axial rotary positions on queries and on the spatial part of the keys.

    `tiled`: in a graph, go through the queries in parts, for a CPU's memory; else whole, for a GPU's fused kernel.
    """

    tiled = False

    def __init__(self, d_model: int, kv_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(kv_dim, d_model)
        self.v_proj = nn.Linear(kv_dim, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cos: Tensor,
        sin: Tensor,
        grids: KeyGrids,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """q (K, E*E, D); k, v (K, T, kv_dim), laid out as `grids` says.

        cos, sin (E*E, D), of the queries; key_mask (K, 1, T), added to the scores. Returns (K, E*E, D).

        The weights of a query sum to 1, so values that are narrower than D may be averaged first and projected
        then: a quarter of the work, with the same result but for rounding.
        """
        q = rotate_pairs(apply_linear(self.q_proj, q), cos, sin)
        k, v, key_mask = self.select_keys(grids.rotate(apply_linear(self.k_proj, k)), v, grids, key_mask)
        if self._averages_first():
            return apply_linear(self.out_proj, apply_linear(self.v_proj, self._attend(q, k, v, key_mask)))
        return apply_linear(self.out_proj, self._attend(q, k, apply_linear(self.v_proj, v), key_mask))

    def select_keys(
        self, k: Tensor, v: Tensor, grids: KeyGrids, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is attended to, of the rotated keys and the values not projected: here all of it."""
        return k, v, key_mask

    def _averages_first(self) -> bool:
        """Not while training, and not in a graph for a GPU: fused kernels want values as wide as keys."""
        if torch.onnx.is_in_onnx_export():
            return self.tiled and self.v_proj.in_features < self.v_proj.out_features
        return not torch.is_grad_enabled() and self.v_proj.in_features < self.v_proj.out_features

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
        """softmax(q k^T / sqrt(D) + key_mask) v: (K, N, D), (K, T, D), (K, T, C), (K, 1, T) -> (K, N, C)."""
        if self.tiled and torch.onnx.is_in_onnx_export():
            rows = min(q.shape[1], max(1, MAX_EXPORTED_SCORES // int(k.shape[1])))
            return torch.cat([attention(part, k, v, key_mask) for part in q.split(rows, 1)], dim=1)
        # torch has a fused kernel for values as wide as keys alone, and with many queries it is slower.
        many = q.shape[1] >= CHUNKED_FROM and not (torch.is_grad_enabled() or torch.onnx.is_in_onnx_export())
        if (many or v.shape[-1] < k.shape[-1]) and q.device.type == "cpu":
            return chunked_attention(q, k, v, key_mask)
        mask = None if key_mask is None else key_mask[:, None]
        return attention_for_gpu(q[:, None], k[:, None], v[:, None], mask)[:, 0]
