"""What is between trunk and heads: a feature pyramid, or two convolutions where the trunk has one stride."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.hiera import Hiera
from sam2edge.torch_sam2.layers import LayerNorm2d
from sam2edge.torch_sam2.lite import Lite
from sam2edge.torch_sam2.repvit import RepVit
from sam2edge.torch_sam2.trunk import Trunk
from sam2edge.torch_sam2.vit import Vit
from sam2edge.variants import Variant


class _Lateral(nn.Module):
    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, d_model, kernel_size=1)


class FpnNeck(nn.Module):
    """Lateral 1x1 convolutions of the four stages, the coarsest first.

    Only stride 16 receives the coarser level (SAM 2's fpn_top_down_levels 2 and 3); strides 4 and 8 are their lateral
    alone, and stride 32 itself is dropped.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Lateral(c, variant.d_model) for c in reversed(variant.stage_dims))

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Trunk outputs -> the embedding (B, d_model, E, E)."""
        stride_16, stride_32 = features[2:]
        coarse = F.interpolate(conv_1x1(stride_32, self._conv(0)), scale_factor=2.0, mode="nearest")
        return conv_1x1(stride_16, self._conv(1)) + coarse

    def detail(self, features: Tensor, stage: int, head: nn.Conv2d) -> Tensor:
        """A fine stage (0 or 1) through its lateral and then `head`, the decoder's own 1x1 convolution.

        The product of the two is applied: the d_model channels between them are never made. (B, C, H, W) in,
        (B, out channels of the head, H, W) out.
        """
        lateral = self._conv(3 - stage)
        weight = head.weight.flatten(1) @ lateral.weight.flatten(1)
        bias = head.weight.flatten(1) @ cast(Tensor, lateral.bias) + cast(Tensor, head.bias)
        return _apply_1x1(features, weight, bias)

    def _conv(self, index: int) -> nn.Conv2d:
        return cast(_Lateral, self.convs[index]).conv


class PlainNeck(nn.Module):
    """A 1x1 and a 3x3 convolution, each normalised, of a trunk's one output."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        d = variant.d_model
        level = nn.Sequential()
        level.add_module("conv_1x1", nn.Conv2d(variant.embed_dim, d, kernel_size=1, bias=False))
        level.add_module("norm_0", LayerNorm2d(d))
        level.add_module("conv_3x3", nn.Conv2d(d, d, kernel_size=3, padding=1, bias=False))
        level.add_module("norm_1", LayerNorm2d(d))
        self.convs = nn.ModuleList([level])

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Trunk output [(B, C, E, E)] -> the embedding (B, d_model, E, E)."""
        return self.convs[0](features[0])  # type: ignore[no-any-return]


def conv_1x1(features: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of (B, C, H, W), giving (B, C', H, W): one matrix product, whatever its strides."""
    return _apply_1x1(features, conv.weight.flatten(1), cast(Tensor, conv.bias))


def _apply_1x1(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    size_hw = (features.shape[2], features.shape[3])
    out = torch.matmul(weight, features.flatten(2)) + bias[:, None]
    return out.unflatten(-1, size_hw)


def make_trunk(variant: Variant, image_size: int) -> Trunk:
    """The trunk that `variant` names, its weights not loaded."""
    if variant.trunk in ("hiera", "vit"):
        return (Hiera if variant.trunk == "hiera" else Vit)(variant, image_size)
    return {"lite": Lite, "repvit": RepVit}[variant.trunk]()


class ImageEncoder(nn.Module):
    """Trunk and neck, under the names that the checkpoints give them."""

    def __init__(self, variant: Variant, image_size: int) -> None:
        super().__init__()
        self.trunk = make_trunk(variant, image_size)
        self.neck = FpnNeck(variant) if variant.has_high_res else PlainNeck(variant)
