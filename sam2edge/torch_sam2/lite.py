"""EfficientNet-Lite0 as a trunk: convolutions and ReLU6 alone, BatchNorm folded into them.

Layers as in "EfficientNet" (Tan and Le, 2019) and its Lite variant (TensorFlow's TPU repository, Apache-2.0): no
squeeze-and-excite, ReLU6 in place of swish. Classifier head and last 1x1 convolution are left out.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.trunk import Trunk

STEM_CHANNELS = 32


class _Stage(NamedTuple):
    expansion: int
    kernel: int
    stride: int
    channels: int
    blocks: int


_STAGES = (
    _Stage(1, 3, 1, 16, 1),
    _Stage(6, 3, 2, 24, 2),
    _Stage(6, 5, 2, 40, 2),
    _Stage(6, 3, 2, 80, 3),
    _Stage(6, 5, 1, 112, 3),
    _Stage(6, 5, 2, 192, 4),
    _Stage(6, 3, 1, 320, 1),
)
_TAPPED_STAGES = (1, 2, 4, 6)
STAGE_DIMS = (24, 40, 112, 320)
"""Channels at strides 4, 8, 16, 32."""


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: at stride 2 an even side gets the odd pixel at its end."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1) -> None:
        even = kernel // 2 if stride == 1 else 0
        super().__init__(channels, out_channels, kernel, stride, padding=even, groups=groups)
        before = (kernel - stride) // 2
        self.margins = [before, kernel - stride - before] * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride[0] == 1 else F.pad(x, self.margins))


class InvertedBottleneck(nn.Module):
    """1x1 widening, depthwise convolution, 1x1 narrowing; the input is added where the shape stays."""

    def __init__(self, channels: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        wide = channels * stage.expansion
        self.expand = nn.Conv2d(channels, wide, 1) if stage.expansion > 1 else None
        self.depthwise = _SameConv(wide, wide, stage.kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, stage.channels, 1)
        self.is_residual = stride == 1 and channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return out + x if self.is_residual else out


class Lite(Trunk):
    """EfficientNet-Lite0 without its head: 3.4 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _SameConv(3, STEM_CHANNELS, 3, 2)
        blocks, taps, channels = [], [], STEM_CHANNELS
        for number, stage in enumerate(_STAGES):
            for i in range(stage.blocks):
                blocks.append(InvertedBottleneck(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.channels
            if number in _TAPPED_STAGES:
                taps.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(taps)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image))
        outputs = []
        for i, block in enumerate(self.blocks):
            x = cast(InvertedBottleneck, block)(x)
            if i in self.taps:
                outputs.append(x)
        return outputs
