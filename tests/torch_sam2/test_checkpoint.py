"""Strict loading, and every checkpoint that must be refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from sam2edge.errors import CheckpointError  # noqa: E402
from sam2edge.torch_sam2.checkpoint import load_model, read_checkpoint  # noqa: E402
from sam2edge.torch_sam2.model import Sam2  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402

MICRO, TINY = find_variant("sam2/micro"), find_variant("sam2/hiera_tiny")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: tensor.contiguous() for name, tensor in Sam2(MICRO).state_dict().items()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_both_formats_load_the_same_weights(state: dict[str, Tensor], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    loaded = load_model(MICRO, path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_half_weights_load_as_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.safetensors")
    model = load_model(MICRO, tmp_path / "half.safetensors")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_all_mismatches_come_in_one_message(state: dict[str, Tensor], tmp_path: Path) -> None:
    broken = dict(state)
    del broken["no_mem_embed"]
    broken["extra.weight"] = torch.zeros(3)
    broken["maskmem_tpos_enc"] = torch.zeros(5, 1, 1, 32)
    torch.save({"model": broken}, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError) as caught:
        load_model(MICRO, tmp_path / "broken.pt")
    message = str(caught.value)
    assert "1 missing (no_mem_embed)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 misshapen (maskmem_tpos_enc (5, 1, 1, 32) instead of (7, 1, 1, 32))" in message


def test_another_variant_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "micro.pt")
    with pytest.raises(CheckpointError, match=r"does not fit sam2.1_hiera_tiny.*load it as sam2/micro"):
        load_model(TINY, tmp_path / "micro.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 1000, -1000])
def test_truncated_files(state: dict[str, Tensor], suffix: str, kept: int, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    save_file(state, whole) if suffix == ".safetensors" else torch.save({"model": state}, whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="remedy"):
        load_model(MICRO, cut)


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_code_in_a_pickle_is_never_run(write: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "bad.pt"
    content = {"model": _Malicious(marker)}
    torch.save(content, path) if write == "torch" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="nothing of it was run"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{"model": {}}, {"model": 3}, [1, 2], {"model": {"a": 1}}, {}])
def test_files_without_weights(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path / "empty.pt")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        load_model(MICRO, tmp_path / "none.pt")
