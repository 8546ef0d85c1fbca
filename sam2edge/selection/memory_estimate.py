"""The memory that a model takes, by image size and backend: measured on CPUs, estimated on GPUs.

`assets/memory_estimate.json` holds what `bench/memory.py` measured, in a fresh process each: a 1920x1080 photo, four
objects tracked with every memory slot in use (so far micro alone; the rows of larger models are of one object). An
engine's manifest states its scratch memory; the rest of a GPU's memory is estimated by the formulas below, and called
an estimate wherever it is shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sam2edge.errors import GraphError
from sam2edge.variants import Variant

MIB = 1 << 20
MARGIN = 1.2
"""Factor on measured figures, because allocators and core counts differ between machines."""
TRACKED_OBJECTS = 4
"""Objects whose memory is counted where a video is to be tracked."""

# Estimates for GPUs. CUDA's context with its kernels, and cuBLAS and cuDNN beside torch, as users of both report it.
_CUDA_CONTEXT_BYTES = 300 * MIB
_TORCH_CUDA_HOST_BYTES, _TORCH_CUDA_GPU_BYTES = 1536 * MIB, 500 * MIB
_TENSORRT_HOST_BYTES = 400 * MIB
# OpenVINO beside onnxruntime: its library, and the weights once more, in the layout of its kernels.
_OPENVINO_EXTRA_BYTES = 80 * MIB
# On a GPU torch computes a whole layer at a time, on a CPU in tiles.
_UNTILED = 2

_UPPER_BOUND = "tiny"
"""Its rows are used for models that were not measured, EdgeTAM and EfficientTAM, whose trunks and memories are no
larger."""

PARAMETERS = {
    "micro": 4_690_000,
    "edgetam": 13_900_000,
    "efficienttam_ti": 17_900_000,
    "efficienttam_s": 34_100_000,
    "tiny": 38_900_000,
    "small": 46_000_000,
    "base_plus": 80_800_000,
    "large": 224_400_000,
}
"""Of each model: SAM 2's README, for micro docs/micro.md, EdgeTAM and EfficientTAM counted."""

_TABLE = Path(__file__).parent.parent / "assets" / "memory_estimate.json"


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes that a model takes beyond those of the process; a machine with one memory needs the sum.

    `embedding_bytes` is for one cached photo, on top. `source` says where the figures come from.
    """

    host_bytes: int
    gpu_bytes: int
    embedding_bytes: int
    source: str

    @property
    def total_bytes(self) -> int:
        return self.host_bytes + self.gpu_bytes


def estimate_on_cpu(variant: Variant, image_size: int, backend: str, tracking: bool) -> MemoryEstimate:
    """Of "onnxruntime", "openvino" or "torch" on the CPU.

    onnxruntime computes float16 graphs in float32, so they count the same. OpenVINO is estimated from it.
    """
    row, exact = _find_row(variant, image_size, "onnxruntime" if backend == "openvino" else backend)
    if "estimated_from" in row:
        source = f"estimate: scaled from {row['estimated_from']}"
    else:
        source = "measured" if exact else f"estimate: scaled from {row['image_size']} pixels"
    peak = row["tracking_peak_bytes"] + TRACKED_OBJECTS * row["bank_bytes"] if tracking else row["images_peak_bytes"]
    if backend == "openvino":
        peak += _OPENVINO_EXTRA_BYTES + _count_weight_bytes(variant)
        source = "estimate: from onnxruntime"
    return MemoryEstimate(int(MARGIN * peak), 0, int(row["embedding_bytes"]), source)


def estimate_torch_cuda(variant: Variant, image_size: int, tracking: bool) -> MemoryEstimate:
    """Of torch on a GPU: its context, the weights in float32, twice the scratch memory of the CPU, which is tiled."""
    row, _ = _find_row(variant, image_size, "torch")
    gpu = _TORCH_CUDA_GPU_BYTES + _count_weight_bytes(variant) + _UNTILED * _count_scratch_bytes(row, tracking)
    host = _TORCH_CUDA_HOST_BYTES + _count_weight_bytes(variant)
    return MemoryEstimate(host, gpu, int(row["embedding_bytes"]), "estimate: from torch on a CPU")


def estimate_engines(
    variant: Variant, image_size: int, precision: str, engine_bytes: int, scratch_bytes: int | None, tracking: bool
) -> MemoryEstimate:
    """Of TensorRT engines: their files, the scratch memory that they share, their tensors, CUDA's context.

    `scratch_bytes` is the largest that a manifest states; None if it was unknown at build time: then onnxruntime's
    is taken, halved for float16.
    """
    row, _ = _find_row(variant, image_size, "onnxruntime")
    source = "engine manifest, and an estimate of CUDA's part"
    if scratch_bytes is None:
        scratch_bytes = _count_scratch_bytes(row, tracking) // (2 if precision == "fp16" else 1)
        source = "estimate: from onnxruntime on a CPU"
    banks = TRACKED_OBJECTS * row["bank_bytes"] if tracking else 0
    tensors = 2 * row["embedding_bytes"] + int(banks)
    gpu = int(MARGIN * (engine_bytes + scratch_bytes + tensors)) + _CUDA_CONTEXT_BYTES
    return MemoryEstimate(_TENSORRT_HOST_BYTES, gpu, int(row["embedding_bytes"]), source)


def table_source() -> str:
    """Where the measured figures come from: result file, date, processor."""
    return str(_read_table()["source"])


def _find_row(variant: Variant, image_size: int, backend: str) -> tuple[dict[str, Any], bool]:
    """The measured row and True; for a size in between the next larger one, beyond the largest one scaled by area."""
    measured = variant.size if variant.size in {r["size"] for r in _read_table()["rows"]} else _UPPER_BOUND
    rows = {r["image_size"]: r for r in _read_table()["rows"] if r["size"] == measured and r["backend"] == backend}
    if measured != variant.size:
        rows = {size: {**row, "estimated_from": f"{measured}, which takes more"} for size, row in rows.items()}
    if image_size in rows:
        return rows[image_size], True
    larger = [size for size in rows if size >= image_size]
    if larger:
        return rows[min(larger)], False
    row = rows[max(rows)]
    return _scale_row(row, (image_size / row["image_size"]) ** 2), False


def _scale_row(row: dict[str, Any], factor: float) -> dict[str, Any]:
    loaded = row["library_bytes"] + row["weights_bytes"]
    peaks = {
        name: loaded + factor * max(0, row[name] - loaded) for name in ("images_peak_bytes", "tracking_peak_bytes")
    }
    return {**row, **peaks, **{name: factor * row[name] for name in ("embedding_bytes", "bank_bytes")}}


def _count_scratch_bytes(row: dict[str, Any], tracking: bool) -> int:
    peak = row["tracking_peak_bytes" if tracking else "images_peak_bytes"]
    return int(max(0, peak - row["library_bytes"] - row["weights_bytes"]))


def _count_weight_bytes(variant: Variant) -> int:
    """The weights in float32: what the official checkpoint holds."""
    return 4 * PARAMETERS[variant.size]


@lru_cache(maxsize=1)
def _read_table() -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GraphError(
            "the table of memory estimates cannot be read", got=f"{_TABLE}: {error}", remedy="reinstall sam2edge"
        ) from error
    return table
