"""EfficientTAM's attention to memories: each is averaged over 2x2 cells first, a quarter of the keys.

"Efficient Track Anything" (Xiong et al. 2024). While a frame has one memory alone, it attends to all of that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sam2edge.contract import MASKED_OUT
from sam2edge.torch_sam2.rotary_attention import KeyGrids, RotaryAttention

RAISE = math.log(4)
"""An average stands for four cells: so much is added to its score, or (as other weights were trained) to its key."""

_LEAST_SLOTS = 4  # pooled, as many keys as one memory has cells


class PooledAttention(RotaryAttention):
    """`raises`: "scores" or "keys", to which `RAISE` is added; each checkpoint was trained with one of the two."""

    def __init__(self, d_model: int, kv_dim: int, raises: str) -> None:
        super().__init__(d_model, kv_dim)
        self.raised_key = RAISE if raises == "keys" else 0.0
        self.raised_score = RAISE if raises == "scores" else 0.0

    def select_keys(
        self, k: Tensor, v: Tensor, grids: KeyGrids, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        cells, slots = grids.cos.shape[0], grids.memories
        if slots == 1:
            return k, v, key_mask
        if key_mask is not None and slots < _LEAST_SLOTS:
            k, v = (_widen(x, slots, cells, 0.0) for x in (k, v))
            key_mask = _widen(key_mask.transpose(1, 2), slots, cells, MASKED_OUT).transpose(1, 2)
            slots = _LEAST_SLOTS
        pooled_k, pooled_v = _pool(k, slots, cells, self.raised_key), _pool(v, slots, cells)
        if key_mask is None:
            mask = k.new_zeros(k.shape[0], 1, pooled_k.shape[1])
            mask[..., : slots * cells // 4] = self.raised_score
            return pooled_k, pooled_v, mask if self.raised_score else None
        # As many keys whatever the number of memories, whose slots fill from the first on. While only that is in use,
        # its cells take the places of the first `_LEAST_SLOTS`.
        in_use = key_mask[:, 0, : slots * cells].unflatten(1, (slots, cells))[:, :, :1]  # (K, slots, 1)
        alone = in_use[:, 1:2] < MASKED_OUT / 2  # (K, 1, 1)
        pooled_mask = (in_use + self.raised_score).expand(-1, slots, cells // 4).flatten(1)[:, None]
        mask = torch.cat((pooled_mask, key_mask[..., slots * cells :]), dim=2)
        return (
            _replace_first(pooled_k, k[:, :cells], alone, dim=1),
            _replace_first(pooled_v, v[:, :cells], alone, dim=1),
            _replace_first(mask, key_mask[..., :cells], alone, dim=2),
        )


def _widen(x: Tensor, slots: int, cells: int, value: float) -> Tensor:
    """(K, slots*cells + P, C) with slots added that hold `value`, up to `_LEAST_SLOTS`."""
    added = x.new_full((x.shape[0], (_LEAST_SLOTS - slots) * cells, x.shape[2]), value)
    return torch.cat((x[:, : slots * cells], added, x[:, slots * cells :]), dim=1)


def _replace_first(x: Tensor, other: Tensor, where: Tensor, dim: int) -> Tensor:
    """`x` with `other` in its first places where that is so, (K, 1, 1)."""
    count = other.shape[dim]
    first, rest = x.split([count, x.shape[dim] - count], dim=dim)
    return torch.cat((torch.where(where, other, first), rest), dim=dim)


def _pool(x: Tensor, slots: int, cells: int, raised: float = 0.0) -> Tensor:
    """2x2 means of the slots' square grids with `raised` added, and the rest as it is.

    (K, slots*cells + P, C) -> (K, slots*cells/4 + P, C).
    """
    side = math.isqrt(cells)
    grids = x[:, : slots * cells].unflatten(1, (slots * side // 2, 2, side // 2, 2))
    upper, lower = grids.split(1, dim=2)
    left, right = (upper + lower).squeeze(2).split(1, dim=3)
    return torch.cat((0.25 * (left + right).squeeze(3).flatten(1, 2) + raised, x[:, slots * cells :]), dim=1)
