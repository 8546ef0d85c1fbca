"""Linear layers for inference on a CPU: bias and activation come with the product, not in passes of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ATTRIBUTES = {None: ("none", ""), F.relu: ("relu", ""), F.gelu: ("gelu", "none")}
"""An activation, and how oneDNN's operator calls it and its algorithm ("none": gelu by the error function)."""


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """activation(x weight^T + bias): (..., I), (O, I), (O,) -> (..., O).

    `F.linear` writes the bias first and adds the product to it, and an activation reads and writes all of it again.
    oneDNN does the three in one pass; torch has it as the operator that its own compiler emits. Where that is missing,
    where gradients are wanted, on a GPU and in an exported graph the plain functions are used.
    """
    if _fuses(x) and activation in _ATTRIBUTES:
        name, algorithm = _ATTRIBUTES[activation]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)  # type: ignore[no-any-return]
    x = F.linear(x, weight, bias)
    return x if activation is None else activation(x)


def apply_linear(layer: nn.Linear, x: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """`linear` with a layer's weight and bias."""
    return linear(x, layer.weight, layer.bias, activation)


def _fuses(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
