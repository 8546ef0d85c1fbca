"""What memory a build takes, looked at before it starts."""

from __future__ import annotations

from pathlib import Path

from sam2edge.engine_build.library import Library
from sam2edge.errors import OutOfMemoryError
from sam2edge.machine.device import Gpu, available_memory_bytes

_MIB = 1 << 20
# What a builder takes before it looks at a graph: kernels, and on the GPU for timing them (nanosam issue 40).
_BUILDER_BYTES = {"tensorrt": 930 * _MIB, "tensorrt_rtx": 250 * _MIB}
_BUILDER_GPU_BYTES = 750 * _MIB
_BYTES_PER_GRAPH_BYTE = 4


def check_free_memory(graph: Path, library: Library, gpu: Gpu | None) -> None:
    """Raises OutOfMemoryError before a build that the memory available now cannot hold."""
    needed = _BUILDER_BYTES[library.name] + _BYTES_PER_GRAPH_BYTE * graph.stat().st_size
    if gpu is not None and gpu.integrated:
        needed += _BUILDER_GPU_BYTES
    available = available_memory_bytes()
    if available is not None and available < needed:
        raise OutOfMemoryError(
            f"not enough memory to build {graph.stem}",
            expected=f"{needed // _MIB} MiB available",
            got=f"{available // _MIB} MiB",
            remedy="close other programs (a desktop takes 1 GiB), add swap for the build, or use a smaller model",
        )


def workspace_bytes(gpu: Gpu) -> int:
    """The scratch memory a builder may use: half of what the GPU can give; of shared memory half of what is free."""
    available = available_memory_bytes() if gpu.integrated else None
    return min(gpu.total_bytes, available or gpu.total_bytes) // 2
