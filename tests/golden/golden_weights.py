"""Deterministic weights that both the reference outputs in this folder and any implementation can make.

`golden_tensor(name, shape)` gives the float32 value of one parameter or buffer of a SAM 2 checkpoint from its
name and shape alone (numpy only), `write_golden_checkpoint` a whole checkpoint in the official format.
"""

import zlib
from pathlib import Path

import numpy as np


def golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("running_var"):  # large, or sums of a RepViT's forty branches would grow without bound
        return 25 * np.abs(golden_tensor(f"{name}.weight", shape))
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    n = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("positional_encoding_gaussian_matrix"):
        return n
    if name.endswith("gamma"):
        return 0.5 + 0.1 * n
    if len(shape) <= 1:
        return (1.0 + 0.1 * n) if name.endswith("weight") else 0.05 * n
    is_embedding = any(part in name for part in ("embed", "no_", "tpos", "pointer")) or name.endswith(
        ("token.weight", "tokens.weight")
    )
    if is_embedding and "patch_embed.proj" not in name and "mask_downscaling" not in name:
        return 0.3 * n
    return n / np.sqrt(int(np.prod(shape[1:])))


def write_golden_checkpoint(model_id: str, target: Path) -> None:
    """`{"model": {name: tensor}}` for torch, float32 as the official files are."""
    import torch

    from sam2edge.torch_sam2.checkpoint import parameter_shapes
    from sam2edge.variants import find_variant

    shapes = parameter_shapes(find_variant(model_id))
    # numpy 2 gives float64 for some of them.
    state = {name: torch.as_tensor(golden_tensor(name, shape)).float() for name, shape in shapes.items()}
    torch.save({"model": state}, target)
