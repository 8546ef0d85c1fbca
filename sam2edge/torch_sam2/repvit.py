"""RepViT-M1, EdgeTAM's trunk: depthwise convolutions with squeeze-and-excite, all branches fused for inference.

Layers and names as in timm's `repvit_m1` ("RepViT: Revisiting Mobile CNN From ViT Perspective", Wang et al. 2024).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2edge.torch_sam2.trunk import Trunk

STAGE_DIMS = (48, 96, 192, 384)
"""Channels at strides 4, 8, 16, 32."""
_STAGE_BLOCKS = (2, 2, 14, 2)
_SQUEEZED = (16, 24, 48, 96)  # a quarter of the channels, rounded to multiples of 8


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm; one convolution after `fuse`."""

    def __init__(self, channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))

    def fuse(self) -> None:
        """Folds the BatchNorm into the convolution, for inference with fixed weights; once is enough."""
        if not isinstance(self.bn, nn.BatchNorm2d):
            return
        statistics = self.bn
        assert statistics.running_mean is not None and statistics.running_var is not None
        scale = statistics.weight / torch.sqrt(statistics.running_var + statistics.eps)
        self.c.weight = nn.Parameter(self.c.weight * scale[:, None, None, None], requires_grad=False)
        self.c.bias = nn.Parameter(statistics.bias - statistics.running_mean * scale, requires_grad=False)
        self.bn = nn.Identity()


class TokenMixer(nn.Module):
    """A 3x3 and a 1x1 depthwise convolution and the input itself, added up; one 3x3 convolution after `fuse`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1: ConvNorm | None = ConvNorm(channels, channels, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.conv1 is None else self.conv(x) + self.conv1(x) + x

    def fuse(self) -> None:
        if self.conv1 is None:
            return
        self.conv.fuse()
        self.conv1.fuse()
        large, small = self.conv.c, self.conv1.c
        assert large.bias is not None and small.bias is not None
        large.weight += F.pad(small.weight + 1.0, [1, 1, 1, 1])  # the 1 is the input's own branch
        large.bias += small.bias
        self.conv1 = None


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0..1, from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class ChannelMixer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, 2 * channels)
        self.conv2 = ConvNorm(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(x)))


class RepVitBlock(nn.Module):
    def __init__(self, channels: int, squeezed: int | None) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = nn.Identity() if squeezed is None else SqueezeExcite(channels, squeezed)
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class Downsample(nn.Module):
    """Half the side and other channels."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.pre_block = RepVitBlock(channels, None)
        self.spatial_downsample = ConvNorm(channels, channels, 3, 2, groups=channels)
        self.channel_downsample = ConvNorm(channels, out_channels)
        self.ffn = ChannelMixer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class Stage(nn.Module):
    def __init__(self, channels: int, out_channels: int, blocks: int, squeezed: int) -> None:
        super().__init__()
        self.downsample = nn.Identity() if channels == out_channels else Downsample(channels, out_channels)
        every_other = (squeezed if i % 2 == 0 else None for i in range(blocks))
        self.blocks = nn.Sequential(*(RepVitBlock(out_channels, width) for width in every_other))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Stem(nn.Module):
    """Image (B, 3, S, S) -> (B, 48, S/4, S/4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, 3, 2)
        self.conv2 = ConvNorm(channels // 2, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(x)))


class RepVit(Trunk):
    """4.7 M parameters before fusing. Checkpoints hold the branches; `bake_position` fuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Module()
        self.body.add_module("stem", Stem(STAGE_DIMS[0]))
        before = STAGE_DIMS[0]
        for i, (channels, blocks, squeezed) in enumerate(zip(STAGE_DIMS, _STAGE_BLOCKS, _SQUEEZED, strict=True)):
            self.body.add_module(f"stages_{i}", Stage(before, channels, blocks, squeezed))
            before = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        stem, *stages = self.body.children()
        x, outputs = stem(image), []
        for stage in stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    @torch.no_grad()
    def bake_position(self) -> None:
        for kind in (TokenMixer, ConvNorm):  # a mixer first: it adds up its convolutions
            for module in list(self.modules()):
                if isinstance(module, kind):
                    module.fuse()
