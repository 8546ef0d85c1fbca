"""The Hiera trunk: four stages of windowed attention with query pooling between them."""

from __future__ import annotations

import itertools
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.layers import MLP, attention, attention_for_gpu
from sam2edge.torch_sam2.linear import apply_linear, linear
from sam2edge.torch_sam2.position import Positioned, bicubic_matrix
from sam2edge.torch_sam2.trunk import Trunk
from sam2edge.variants import Variant

STRIP_ROWS = 32
"""Rows of the stride-4 grid that the early blocks work on at a time, tiled: few enough to stay in a CPU's cache."""

QUERY_ROWS = 256
"""Queries of one piece of global attention, tiled: 4,096 at once would need 268 MB of scores, twice."""


def to_windows(x: Tensor, size: int, grid_hw: tuple[int, int], channels: int) -> Tensor:
    """(B, rows, cols, C) -> (B*windows, size*size, C); the grid is padded with zeros to multiples of `size`.

    Sizes are handed in as numbers, not read off the tensor, so that a trace bakes them.
    """
    rows, cols = grid_hw
    pad_rows, pad_cols = -rows % size, -cols % size
    if pad_rows or pad_cols:
        x = F.pad(x, (0, 0, 0, pad_cols, 0, pad_rows))
    down, across = (rows + pad_rows) // size, (cols + pad_cols) // size
    x = x.reshape(-1, down, size, across, size, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, size * size, channels)


def from_windows(x: Tensor, size: int, grid_hw: tuple[int, int], channels: int) -> Tensor:
    """The way back: (B*windows, size*size, C) -> (B, rows, cols, C), padding cut off."""
    rows, cols = grid_hw
    down, across = -(-rows // size), -(-cols // size)
    x = x.reshape(-1, down, across, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, down * size, across * size, channels)
    return x if (down * size, across * size) == grid_hw else x[:, :rows, :cols]


def pool_2x2(x: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Max over 2x2 cells, channels last throughout: (B, rows, cols, C) -> (B, rows/2, cols/2, C)."""
    rows, cols = grid_hw
    upper, lower = x.unflatten(1, (rows // 2, 2)).split(1, dim=2)
    x = torch.maximum(upper, lower).squeeze(2)
    left, right = x.unflatten(2, (cols // 2, 2)).split(1, dim=3)
    return torch.maximum(left, right).squeeze(3)


class MultiScaleAttention(nn.Module):
    """Multi-head attention inside windows of `window` cells (0: over the whole grid), queries pooled on request."""

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool_queries: bool) -> None:
        super().__init__()
        self.dim = dim
        self.dim_out = dim_out
        self.heads = heads
        self.window = window
        self.pool_queries = pool_queries
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor, grid_hw: tuple[int, int], tiled: bool = False) -> Tensor:
        """(B, rows, cols, dim) -> (B, rows', cols', dim_out); halved with query pooling."""
        window = self.window
        q, k, v = self._project(x, grid_hw)
        if self.pool_queries:
            side_hw = (window, window) if window else grid_hw
            q = pool_2x2(q.unflatten(1, side_hw), side_hw).flatten(1, 2)
            grid_hw, window = (grid_hw[0] // 2, grid_hw[1] // 2), window // 2
        queries = 0 if window else grid_hw[0] * grid_hw[1]
        out = self._attend(self._split(q), self._split(k), self._split(v), queries, tiled)
        out = out.transpose(1, 2).flatten(2)
        if not window:
            return apply_linear(self.proj, out).unflatten(1, grid_hw)
        if grid_hw[0] % window or grid_hw[1] % window:  # padding need not be projected
            return apply_linear(self.proj, from_windows(out, window, grid_hw, self.dim_out))
        return from_windows(apply_linear(self.proj, out), window, grid_hw, self.dim_out)

    def _project(self, x: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B*windows, cells of a window, dim_out)."""
        window = self.window
        if window and (grid_hw[0] % window or grid_hw[1] % window) and torch.onnx.is_in_onnx_export():
            # Padding, then projecting, is quicker in torch; in a graph the bias added after the padding is.
            q, k, v = (to_windows(part, window, grid_hw, self.dim_out) for part in self._linear(x, with_bias=False))
            bias_q, bias_k, bias_v = self.qkv.bias.split(self.dim_out)
            return q + bias_q, k + bias_k, v + bias_v
        x = to_windows(x, window, grid_hw, self.dim) if window else x.flatten(1, 2)
        return self._linear(x, with_bias=True)

    def _linear(self, x: Tensor, with_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
        bias = self.qkv.bias if with_bias else None
        if not torch.onnx.is_in_onnx_export():
            q, k, v = linear(x, self.qkv.weight, bias).split(self.dim_out, dim=-1)
            return q, k, v
        # In a graph three products spare the copies of a split.
        weights = self.qkv.weight.split(self.dim_out)
        biases = (None, None, None) if bias is None else bias.split(self.dim_out)
        q, k, v = (F.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, queries: int, tiled: bool) -> Tensor:
        if not (tiled and queries > QUERY_ROWS and torch.onnx.is_in_onnx_export()):
            return attention(q, k, v) if tiled else attention_for_gpu(q, k, v)  # torch's own works in pieces already
        pieces = (q[:, :, i : i + QUERY_ROWS] for i in range(0, queries, QUERY_ROWS))
        return torch.cat([attention(piece, k, v) for piece in pieces], dim=2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.dim_out // self.heads)).transpose(1, 2)


class MultiScaleBlock(nn.Module):
    """Attention and MLP with residuals; where the width changes, the shortcut is projected and pooled too."""

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool_queries: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiScaleAttention(dim, dim_out, heads, window, pool_queries)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, 2, activation=F.gelu)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)
        self.changes_width = dim != dim_out
        self.pool_queries = pool_queries

    def forward(self, x: Tensor, grid_hw: tuple[int, int], tiled: bool = False) -> Tensor:
        """(B, rows, cols, dim) -> (B, rows', cols', dim_out); halved with query pooling."""
        shortcut = x
        x = self.norm1(x)
        if self.changes_width:
            shortcut = apply_linear(self.proj, x)
            shortcut = pool_2x2(shortcut, grid_hw) if self.pool_queries else shortcut
        x = shortcut + self.attn(x, grid_hw, tiled)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """(B, 3, S, S) -> (B, S/4, S/4, C)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Hiera(Positioned, Trunk):
    """Image (B, 3, S, S) -> the last output of each stage, (B, C_i, S/4/2^i, S/4/2^i) for i = 0..3.

    `tiled` trades few large operations for many small ones, with the same result: blocks that look no further than
    their windows run strip by strip, global attention (in a graph) some queries at a time. Quicker and far smaller on
    a CPU; not for a GPU.
    """

    def __init__(self, variant: Variant, image_size: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(variant.embed_dim)
        grid = self.grid = image_size // 4
        rows, cols = variant.pos_embed_hw
        self.pos_embed = nn.Parameter(torch.zeros(1, variant.embed_dim, rows, cols))
        window = variant.window_sizes[0]
        self.pos_embed_window = nn.Parameter(torch.zeros(1, variant.embed_dim, window, window))
        self.window_repeats = -(-grid // window)
        self.enlarge_rows: Tensor
        self.enlarge_cols: Tensor
        self.register_buffer("enlarge_rows", bicubic_matrix(rows, grid), persistent=False)
        self.register_buffer("enlarge_cols", bicubic_matrix(cols, grid).T.contiguous(), persistent=False)
        self.blocks = nn.ModuleList(_make_blocks(variant))
        self.stage_ends = tuple(end - 1 for end in itertools.accumulate(variant.stages))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.patch_embed(image) + self.current_position()
        early = range(self._count_strip_blocks() if self.tiled else 0)
        outputs: list[Tensor] = []
        grid = self.grid
        if early:
            runs = [self._run(strip, (STRIP_ROWS, grid), early) for strip in x.split(STRIP_ROWS, dim=1)]
            outputs = [torch.cat(parts, dim=1) for parts in zip(*(ends for ends, _ in runs), strict=True)]
            x = torch.cat([last for _, last in runs], dim=1)
            grid >>= sum(self._block(i).pool_queries for i in early)
        late = range(len(early), len(self.blocks))
        outputs += self._run(x, (grid, grid), late)[0]
        return [output.permute(0, 3, 1, 2) for output in outputs]

    def _run(self, x: Tensor, grid_hw: tuple[int, int], blocks: range) -> tuple[list[Tensor], Tensor]:
        """Some blocks on the grid or a strip of it: the outputs of the stages that end in them, and the last one."""
        ends = []
        for i in blocks:
            x = self._block(i)(x, grid_hw, self.tiled)
            if self._block(i).pool_queries:
                grid_hw = (grid_hw[0] // 2, grid_hw[1] // 2)
            if i in self.stage_ends:
                ends.append(x)
        return ends, x

    def _count_strip_blocks(self) -> int:
        """How many leading blocks have windows that neither cross the strips nor are padded."""
        grid, strip = self.grid, STRIP_ROWS
        if grid % strip:
            return 0
        for i in range(len(self.blocks)):
            window = self._block(i).attn.window
            if not window or grid % window or strip % window:
                return i
            if self._block(i).pool_queries:
                grid, strip = grid // 2, strip // 2
        return len(self.blocks)

    def _block(self, index: int) -> MultiScaleBlock:
        return cast(MultiScaleBlock, self.blocks[index])

    def position(self) -> Tensor:
        """Learned positions (1, S/4, S/4, C): the enlarged coarse grid plus the repeated window."""
        coarse = torch.matmul(torch.matmul(self.enlarge_rows, self.pos_embed), self.enlarge_cols)
        tiled = self.pos_embed_window.repeat(1, 1, self.window_repeats, self.window_repeats)
        tiled = tiled[:, :, : self.grid, : self.grid]
        return (coarse + tiled).permute(0, 2, 3, 1)


def _make_blocks(variant: Variant) -> list[MultiScaleBlock]:
    blocks: list[MultiScaleBlock] = []
    dim, heads = variant.embed_dim, variant.trunk_heads
    for stage, depth in enumerate(variant.stages):
        for i in range(depth):
            pools = i == 0 and stage > 0
            # A stage's first block still works in the windows of the stage before, ahead of the pooling.
            window = variant.window_sizes[stage - 1 if pools else stage]
            window = 0 if len(blocks) in variant.global_blocks else window
            heads = heads * 2 if pools else heads
            dim_out = dim * 2 if pools else dim
            blocks.append(MultiScaleBlock(dim, dim_out, heads, window, pools))
            dim = dim_out
    return blocks
