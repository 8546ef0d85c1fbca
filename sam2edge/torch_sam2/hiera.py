"""The Hiera trunk: four stages of windowed attention with query pooling between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.layers import MLP, attention
from sam2edge.torch_sam2.position import bicubic_matrix
from sam2edge.variants import Variant


def to_windows(x: Tensor, size: int, grid: int, channels: int) -> Tensor:
    """(B, grid, grid, C) -> (B*windows, size*size, C); the grid is padded with zeros to a multiple of `size`.

    Sizes are handed in as numbers, not read off the tensor, so that a trace bakes them.
    """
    pad = -grid % size
    if pad:
        x = F.pad(x, (0, 0, 0, pad, 0, pad))
    side = (grid + pad) // size
    x = x.reshape(-1, side, size, side, size, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, size * size, channels)


def from_windows(x: Tensor, size: int, grid: int, channels: int) -> Tensor:
    """The way back: (B*windows, size*size, C) -> (B, grid, grid, C), padding cut off."""
    side = -(-grid // size)
    x = x.reshape(-1, side, side, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, side * size, side * size, channels)
    return x if side * size == grid else x[:, :grid, :grid]


def pool_2x2(x: Tensor) -> Tensor:
    """Max over 2x2 cells: (B, H, W, C) -> (B, H/2, W/2, C)."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class MultiScaleAttention(nn.Module):
    """Multi-head attention inside windows of `window` cells (0: over the whole grid), queries pooled on request.

    `grid` is the side of the token grid that comes in.
    """

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool_queries: bool, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.grid = grid
        self.dim_out = dim_out
        self.window = window
        self.pool_queries = pool_queries
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) -> (B, H', W', dim_out); H' = H/2 with query pooling."""
        grid, window = self.grid, self.window
        # The official code pads before the projection; the bias added after padding gives the same, for less work.
        qkv = F.linear(x, self.qkv.weight)
        qkv = to_windows(qkv, window, grid, 3 * self.dim_out) if window else qkv.flatten(1, 2)
        q, k, v = (qkv + self.qkv.bias).split(self.dim_out, dim=-1)
        if self.pool_queries:
            side = window or grid
            q = pool_2x2(q.unflatten(1, (side, side))).flatten(1, 2)
            grid, window = grid // 2, window // 2
        out = attention(self._split(q), self._split(k), self._split(v))
        out = out.transpose(1, 2).flatten(2)
        out = from_windows(out, window, grid, self.dim_out) if window else out.unflatten(1, (grid, grid))
        return self.proj(out)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.dim_out // self.heads)).transpose(1, 2)


class MultiScaleBlock(nn.Module):
    """Attention and MLP with residuals; where the width changes, the shortcut is projected and pooled too."""

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, pool_queries: bool, grid: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiScaleAttention(dim, dim_out, heads, window, pool_queries, grid)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, 2, activation=F.gelu)
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)
        self.changes_width = dim != dim_out
        self.pool_queries = pool_queries

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        if self.changes_width:
            shortcut = self.proj(x)
            shortcut = pool_2x2(shortcut) if self.pool_queries else shortcut
        x = shortcut + self.attn(x)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """(B, 3, S, S) -> (B, S/4, S/4, C)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """Image (B, 3, S, S) -> the last output of each stage, (B, C_i, S/4/2^i, S/4/2^i) for i = 0..3."""

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
        self.blocks = nn.ModuleList(_make_blocks(variant, grid))
        depth = 0
        ends = []
        for blocks in variant.stages:
            depth += blocks
            ends.append(depth - 1)
        self.stage_ends = tuple(ends)
        self._baked_position: Tensor | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.patch_embed(image) + (self.position() if self._baked_position is None else self._baked_position)
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def position(self) -> Tensor:
        """Learned positions (1, S/4, S/4, C): the enlarged coarse grid plus the repeated window."""
        coarse = torch.matmul(torch.matmul(self.enlarge_rows, self.pos_embed), self.enlarge_cols)
        tiled = self.pos_embed_window.repeat(1, 1, self.window_repeats, self.window_repeats)
        tiled = tiled[:, :, : self.grid, : self.grid]
        return (coarse + tiled).permute(0, 2, 3, 1)

    def bake_position(self) -> None:
        """Computes the positions once, for inference with fixed weights; call again after weights change."""
        with torch.no_grad():
            self._baked_position = self.position().contiguous()

    def train(self, mode: bool = True) -> Hiera:
        self._baked_position = None
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]  # torch's own signature
        self._baked_position = None
        return super()._apply(fn, recurse)


def _make_blocks(variant: Variant, grid: int) -> list[MultiScaleBlock]:
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
            blocks.append(MultiScaleBlock(dim, dim_out, heads, window, pools, grid))
            dim, grid = dim_out, grid // 2 if pools else grid
    return blocks
