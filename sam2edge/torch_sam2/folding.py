"""BatchNorm folded into the convolution before it: the same function in evaluation mode, one operation less."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def fold_batch_norm(state: Mapping[str, Tensor], conv: str, norm: str, epsilon: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution named `conv` with the BatchNorm named `norm` that follows it.

    Both names are those of the modules in `state`. The convolution's own bias counts where it has one.
    """
    weight, bias = state[f"{conv}.weight"], state.get(f"{conv}.bias")
    mean, deviation = state[f"{norm}.running_mean"], torch.sqrt(state[f"{norm}.running_var"] + epsilon)
    scale = state[f"{norm}.weight"] / deviation
    shift = -mean if bias is None else bias - mean
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), state[f"{norm}.bias"] + shift * scale
