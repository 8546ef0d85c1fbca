"""Points, boxes and masks -> tokens and a dense map."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from sam2edge.contract import ABSENT, BACKGROUND, FOREGROUND, PADDING
from sam2edge.torch_sam2.layers import LayerNorm2d
from sam2edge.torch_sam2.position import Positioned


class _RandomPosition(nn.Module):
    """Random Fourier features of normalised (x, y): (..., 2) in [0, 1] -> (..., channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix: Tensor
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, xy: Tensor) -> Tensor:
        angle = (2 * xy - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class PromptEncoder(Positioned):
    """Encodes prompts given in model pixels (0..S, x right, y down, pixel corners at whole numbers).

    Labels: 1 foreground, 0 background, 2 and 3 a box's top-left and bottom-right corner, -1 "not a point" (a real
    token of SAM 2), -2 absent (a static slot that no prompt uses). The official predictor always appends one
    "not a point" token, after boxes too but not to a mask alone, and so does this module.
    """

    def __init__(self, d_model: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = image_size // 16
        self.pe_layer = _RandomPosition(d_model)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, d_model) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, d_model)
        self.no_mask_embed = nn.Embedding(1, d_model)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, d_model, kernel_size=1),
        )

    def forward(
        self, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor | None, has_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """point_coords (K, N, 2), point_labels (K, N), mask_input (K, 1, 4E, 4E), has_mask (K,) of 0 or 1, or None.

        Returns tokens (K, N+1, D), dense map (K, D, E, E), or (1, D, 1, 1) without masks, and absent (K, N+1) bool.
        """
        pad_xy = torch.zeros_like(point_coords[:, :1])
        pad_label = point_labels.amax(dim=1, keepdim=True).clamp(max=PADDING)  # ABSENT where no slot is in use
        coords = torch.cat((point_coords, pad_xy), dim=1)
        labels = torch.cat((point_labels, pad_label), dim=1)
        tokens = self._tokens(coords, labels)
        no_mask = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if mask_input is None or has_mask is None:
            return tokens, no_mask, labels == ABSENT
        given = has_mask.reshape(-1, 1, 1, 1).to(mask_input.dtype)
        dense = given * self.mask_downscaling(mask_input) + (1 - given) * no_mask
        return tokens, dense, labels == ABSENT

    def _tokens(self, coords: Tensor, labels: Tensor) -> Tensor:
        position = self.pe_layer((coords + 0.5) / self.image_size)
        kinds = torch.cat([cast(nn.Embedding, e).weight for e in self.point_embeddings])
        codes = torch.arange(BACKGROUND, BACKGROUND + 4, device=labels.device, dtype=labels.dtype)
        one_hot = (labels[..., None] == codes).to(position.dtype)
        is_point = (labels >= BACKGROUND)[..., None]
        return torch.where(is_point, position + one_hot @ kinds, self.not_a_point_embed.weight[None])

    def position(self) -> Tensor:
        """Position of each embedding cell's centre: (1, D, E, E)."""
        weight = self.no_mask_embed.weight
        centre = (torch.arange(self.grid, device=weight.device, dtype=weight.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self.pe_layer(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]


assert (BACKGROUND, FOREGROUND) == (0, 1)  # rows 0 and 1 of the checkpoints' point_embeddings
