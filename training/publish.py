"""Trained weights -> the embedded model's files in sam2edge/assets.

    python -m training.publish CHECKPOINT.safetensors --version 2

Large tensors are rounded to float16 first, and the graphs are exported from the rounded file, so that weights and
graphs hold the same numbers. The manifest of each graph names the weights it was made of, and others are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sam2edge.export.to_onnx import MIN_HALVED_ELEMENTS, export_graphs
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.torch_sam2.checkpoint import read_checkpoint
from sam2edge.variants import EMBEDDED, VARIANTS

ASSETS = Path(__file__).parent.parent / "sam2edge" / "assets"
MAX_BYTES = 24_000_000


def publish(checkpoint: Path, version: int, folder: Path = ASSETS) -> list[Path]:
    """Writes weights and graphs of the embedded model with their manifests into `folder`; returns the paths."""
    variant = VARIANTS[EMBEDDED]
    weights = folder / f"{variant.name}.safetensors"
    state = {name: _halved(tensor) for name, tensor in read_checkpoint(checkpoint).items()}
    metadata = {"model": variant.name, "version": str(version)}
    paths.write_atomically(weights, lambda path: save_file(state, path, metadata))
    write_manifest(weights, describe_file(weights, model=variant.name))
    return [weights, *export_graphs(variant, weights, variant.image_size, folder, half_weights=True)]


def _halved(tensor: Tensor) -> Tensor:
    dtype = torch.float16 if tensor.numel() >= MIN_HALVED_ELEMENTS else torch.float32
    return tensor.to(dtype).contiguous()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="weights of a run (.safetensors)")
    parser.add_argument("--version", type=int, required=True, help="of the weights: one more than those that ship")
    args = parser.parse_args()
    paths = publish(args.checkpoint, args.version)
    total_bytes = sum(path.stat().st_size for path in paths)
    for path in paths:
        print(f"{path.relative_to(ASSETS.parent)} {path.stat().st_size:,} bytes")
    print(f"{total_bytes:,} bytes of {MAX_BYTES:,}")
    return 0 if total_bytes <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
