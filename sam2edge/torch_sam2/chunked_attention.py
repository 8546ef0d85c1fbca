"""Attention whose scores never leave a CPU's cache, for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from sam2edge.torch_sam2.linear import linear

SCORES_AT_ONCE = (2048, 512)
"""Queries and keys whose scores are held at once: 4 MiB, which two cores share."""

FIRST_KEYS = 256
"""Keys whose highest score is first taken for the highest of all."""


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + key_mask) v: (K, N, D), (K, T, D), (K, T, C), (K, 1, T) -> (K, N, C).

    No gradients: it works in place.

    Any number may be taken from all scores of a query before they are exponentiated; only if it is far below the
    highest do they overflow. So a guess is taken from the first keys, and the true maximum when that was not enough.
    The number and the mask enter the scores as columns of queries and keys, and the sum of the weights leaves as a
    column of the values: matrix products do what would be passes over the scores, and one is left, the exponential.
    """
    masks = [None] * len(q) if key_mask is None else key_mask[:, 0]
    return torch.stack([_attend(*each) for each in zip(q * q.shape[-1] ** -0.5, k, v, masks, strict=True)])


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(N, D), (T, D), (T, C), (T,) -> (N, C)."""
    ones = k.new_ones(len(k), 1)
    keys = torch.cat((k, ones * 0.0 if mask is None else mask[:, None], ones), dim=1)
    values = torch.cat((v, ones), dim=1)
    queries = torch.cat((q, q.new_ones(len(q), 1), q.new_zeros(len(q), 1)), dim=1)
    queries[:, -1] -= linear(queries, keys[:FIRST_KEYS]).amax(1)
    found = _averages(queries, keys, values)
    if not torch.isfinite(found).all():
        queries[:, -1] -= torch.stack([linear(queries, part).amax(1) for part in keys.split(FIRST_KEYS)]).amax(0)
        found = _averages(queries, keys, values)
    return found[:, :-1]


def _averages(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """exp(queries keys^T) values, each row divided by its last column: (N, D'), (T, D'), (T, C') -> (N, C')."""
    rows, columns = SCORES_AT_ONCE
    pairs = [(key, value.T.contiguous()) for key, value in zip(keys.split(columns), values.split(columns), strict=True)]
    found = queries.new_zeros(len(queries), values.shape[1])
    for part, average in zip(queries.split(rows), found.split(rows), strict=True):
        for key, value in pairs:
            average.add_(linear(linear(part, key).exp_(), value))
        average.div_(average[:, -1:].clone())
    return found
