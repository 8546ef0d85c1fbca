"""A plain ViT, EfficientTAM's trunk: one width and one stride throughout, windows in all blocks but every third.

Layers and names as in "Exploring Plain Vision Transformer Backbones for Object Detection" (Li et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2edge.torch_sam2.hiera import MultiScaleBlock
from sam2edge.torch_sam2.position import Positioned, bicubic_matrix
from sam2edge.torch_sam2.trunk import Trunk
from sam2edge.variants import Variant

PATCH = 16
"""Pixels along each side of a token."""


class _PatchEmbed(nn.Module):
    """(B, 3, S, S) -> (B, S/16, S/16, C)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Vit(Positioned, Trunk):
    """Image (B, 3, S, S) -> one feature map (B, C, S/16, S/16).

    `tiled`: in a graph, global attention goes through its queries in parts, for a CPU's memory.
    """

    def __init__(self, variant: Variant, image_size: int) -> None:
        super().__init__()
        dim, window = variant.embed_dim, variant.window_sizes[2]
        self.grid = image_size // PATCH
        self.patch_embed = _PatchEmbed(dim)
        self.trained_hw = variant.pos_embed_hw
        rows, cols = variant.pos_embed_hw
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * cols, dim))  # the first is a class token's, not used
        self.enlarge_rows: Tensor
        self.enlarge_cols: Tensor
        self.register_buffer("enlarge_rows", bicubic_matrix(rows, self.grid), persistent=False)
        self.register_buffer("enlarge_cols", bicubic_matrix(cols, self.grid).T.contiguous(), persistent=False)
        self.blocks = nn.ModuleList(
            MultiScaleBlock(dim, dim, variant.trunk_heads, 0 if i in variant.global_blocks else window, False)
            for i in range(sum(variant.stages))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.patch_embed(image) + self.current_position()
        for block in self.blocks:
            x = block(x, (self.grid, self.grid), self.tiled)
        return [x.permute(0, 3, 1, 2)]

    def position(self) -> Tensor:
        """Learned positions (1, S/16, S/16, C), enlarged from the grid of the pretraining."""
        trained = self.pos_embed[:, 1:].unflatten(1, self.trained_hw).permute(0, 3, 1, 2)
        return torch.matmul(torch.matmul(self.enlarge_rows, trained), self.enlarge_cols).permute(0, 2, 3, 1)
