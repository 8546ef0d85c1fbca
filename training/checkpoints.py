"""Files of a training run: checkpoints to resume from, weights to ship. A file is whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary name beside `path`, then moves the file there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """`state` holds tensors, numbers, strings and containers of them alone, so that it loads without code."""
    _write_whole(path, lambda part: torch.save(state, part))


def load_checkpoint(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def save_weights(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Writes safetensors, every tensor contiguous float32."""
    whole = {name: value.detach().float().contiguous().clone() for name, value in weights.items()}
    _write_whole(path, lambda part: save_file(whole, part, metadata=metadata))


def load_weights(path: Path) -> Weights:
    """The averaged weights of a checkpoint, or those of a safetensors file."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    return dict(load_checkpoint(path)["average"])
