"""Small layers that several SAM 2 modules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.linear import apply_linear


class MLP(nn.Module):
    """`num_layers` linear layers with `activation` between them; (..., in_dim) -> (..., out_dim)."""

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        num_layers: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        dims = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(dims))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = (cast(nn.Linear, layer) for layer in self.layers)
        for layer in hidden:
            x = apply_linear(layer, x, self.activation)
        return apply_linear(last, x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, score_mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(C) + score_mask) v for (..., T, C) tensors.

    Written out while a graph is exported: the tracer turns torch's fused form into twice the nodes, with shapes
    computed at run time. The queries are scaled before the product, which float16 may overflow otherwise.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=score_mask)
    scores = torch.matmul(q * (q.shape[-1] ** -0.5), k.transpose(-1, -2))
    scores = scores if score_mask is None else scores + score_mask
    return torch.matmul(scores.softmax(dim=-1), v)


def attention_for_gpu(q: Tensor, k: Tensor, v: Tensor, score_mask: Tensor | None = None) -> Tensor:
    """`attention` of (B, heads, T, C) tensors, which TensorRT makes one kernel of; with a single head it does not.

    So the batch takes the place of the heads then, and where that is 1 too, two halves of the queries. `score_mask`
    (B, 1, 1, T) or None.
    """
    if q.shape[1] > 1 or not torch.onnx.is_in_onnx_export():
        return attention(q, k, v, score_mask)
    if q.shape[2] == 1:  # of a lone query it makes no kernel either: it comes twice
        return attention_for_gpu(q.expand(-1, -1, 2, -1), k, v, score_mask)[:, :, :1]
    if q.shape[0] > 1:
        mask = None if score_mask is None else score_mask.transpose(0, 1)
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return attention(q, k, v, mask).transpose(0, 1)
    halves = q.unflatten(2, (2, q.shape[2] // 2)).squeeze(1)
    return attention(halves, k.expand(-1, 2, -1, -1), v.expand(-1, 2, -1, -1), score_mask).flatten(1, 2)[:, None]


def _pad_rows(x: Tensor, rows: int) -> Tensor:
    return torch.cat((x, x.new_zeros(rows, *x.shape[1:]))) if rows else x


def run_side_by_side(mlps: Sequence[MLP], x: Tensor) -> Tensor:
    """Runs M equally deep ReLU MLPs, each on its own row: (K, M, in) -> (K, M, widest out).

    One batched matmul a layer instead of M matrix-vector products: TensorRT 10 computes two such products in a row
    wrongly at batch 1 (TensorRT issue 3969). Narrower last layers are padded with zeros at the end.
    """
    x = x.transpose(0, 1)
    depth = len(mlps[0].layers)
    for i in range(depth):
        linears = [cast(nn.Linear, mlp.layers[i]) for mlp in mlps]
        widest = max(linear.out_features for linear in linears)
        weight = torch.stack([_pad_rows(linear.weight, widest - linear.out_features) for linear in linears])
        bias = torch.stack([_pad_rows(linear.bias, widest - linear.out_features) for linear in linears])
        x = torch.matmul(x, weight.transpose(1, 2)) + bias[:, None, :]
        if i < depth - 1:
            x = F.relu(x)
    return x.transpose(0, 1)
