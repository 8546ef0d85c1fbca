"""Strict loading of official checkpoints (.pt) and safetensors files."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sam2edge.errors import CheckpointError
from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import Variant, recognise_shapes, siblings

_MOST_NAMED = 5
_LARGE = 4096  # values; smaller tensors may well be zeros


def load_model(variant: Variant, checkpoint: str | Path, image_size: int | None = None) -> Sam2:
    """The variant's model with the weights of `checkpoint`, float32, in evaluation mode, on the CPU.

    Raises CheckpointError when the file is missing, damaged, unsafe to read, or of another variant.
    """
    state = read_checkpoint(checkpoint)
    check_name(Path(checkpoint), variant)
    check_state(state, parameter_shapes(variant, image_size), variant, str(checkpoint))
    check_values(state, str(checkpoint))
    model = Sam2(variant, image_size)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    return model.bake()


def parameter_shapes(variant: Variant, image_size: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the variant's checkpoint, in the model's order; takes no memory."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in Sam2(variant, image_size).state_dict().items()}


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of an official `.pt` file (`{"model": state_dict}`) or a `.safetensors` file, by name.

    Nothing is unpickled: `.pt` files are read with `weights_only=True`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            "checkpoint not found", expected="a .pt or .safetensors file", got=str(path), remedy="check the path"
        )
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pt(path)
    if not tensors or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise CheckpointError(
            "checkpoint holds no weights",
            expected='{"model": {name: tensor}} or {name: tensor}',
            got=f"{type(tensors).__name__} with {len(tensors)} entries in {path.name}",
            remedy="use an official SAM 2 checkpoint",
        )
    return tensors


def _read_pt(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what matters is raised
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path.name} is not a plain weight file",
            expected="tensors alone",
            got="a pickle that asks for other code, or a damaged file; nothing of it was run",
            remedy="use an official SAM 2 checkpoint, or convert it to .safetensors where you trust it",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damage_error(path, error) from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"checkpoint {path.name} holds no weights",
            expected='{"model": {name: tensor}}',
            got=type(content).__name__,
            remedy="use an official SAM 2 checkpoint",
        )
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damage_error(path, error) from error


def _damage_error(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"checkpoint {path.name} is damaged or cut short",
        expected="a whole .pt or .safetensors file",
        got=f"{path.stat().st_size} bytes ({reason[0][:120] if reason else type(error).__name__})",
        remedy="fetch it again and compare its SHA-256",
    )


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Raises CheckpointError for weights that were never trained so: NaN, infinity, or a large tensor of zeros."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            problem = f"{name} of {tensor.dtype}"
        elif not torch.isfinite(tensor).all():
            problem = f"NaN or infinity in {name}"
        elif tensor.numel() >= _LARGE and tensor.ndim > 1 and not tensor.any():
            problem = f"zeros alone in {name}"
        else:
            continue
        raise CheckpointError(
            f"checkpoint {source} is damaged",
            expected="finite weights",
            got=problem,
            remedy="fetch it again and compare its SHA-256",
        )


def check_name(path: Path, variant: Variant) -> None:
    """Raises CheckpointError where the file is named as that of a variant which the tensors cannot tell from this."""
    named = next(
        (v for v in siblings(variant) if v.checkpoint and Path(v.checkpoint.file_name).stem == path.stem), None
    )
    if named not in (None, variant):
        raise CheckpointError(
            f"{path.name} is named as the weights of {named.model_id}, which has another attention",
            expected=f"weights of {variant.model_id}",
            got=path.name,
            remedy=f"load it as {named.model_id}, or rename it if it is {variant.model_id}",
        )


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], variant: Variant, source: str
) -> None:
    """Raises one CheckpointError naming every kind of mismatch and the variant that the file looks like."""
    missing = [n for n in expected if n not in state]
    unexpected = [n for n in state if n not in expected]
    misshapen = [
        f"{n} {tuple(state[n].shape)} instead of {expected[n]}"
        for n in expected
        if n in state and tuple(state[n].shape) != expected[n]
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if not problems:
        return
    looks_like = recognise_shapes({name: tuple(tensor.shape) for name, tensor in state.items()})
    raise CheckpointError(
        f"checkpoint {source} does not fit {variant.name}",
        expected=f"{len(expected)} tensors of {variant.name}",
        got=", ".join(problems),
        remedy=f"it looks like {looks_like.name}: load it as {looks_like.model_id}"
        if looks_like and looks_like != variant
        else "use the official checkpoint of this model",
    )
