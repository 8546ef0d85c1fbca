"""Versions of CUDA, TensorRT and the libraries that backends need, read without loading any of them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sam2edge.machine.board import read_package_versions
from sam2edge.machine.sysfs import exists, list_children, read_text

# Distributions by import name; the version is that of the first one installed.
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "torch": ("torch",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx-cu12", "tensorrt-rtx", "tensorrt-rtx-cu13"),
    "pycuda": ("pycuda",),
}
TENSORRT_LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""Libraries that build and run engines; a build takes the first one that is installed."""

OLDEST_TENSORRT = (10, 3)
"""Engines are built from strongly typed networks, which JetPack 6.0's TensorRT 8.6 does not have."""

# pycuda 2024.1.2 is the first that runs with numpy 2, 2025.1.2 the first that builds with CUDA 13.
_PYCUDA_FOR_NUMPY_2, _PYCUDA_FOR_CUDA_13 = (2024, 1, 2), (2025, 1, 2)

TENSORRT_UPGRADE = "JetPack 6.1 or later on a Jetson (6.0 has TensorRT 8.6), else pip install --upgrade tensorrt"
TENSORRT_INSTALL = "sudo apt install python3-libnvinfer (Jetson) or pip install tensorrt"

# TensorRT's runtime as JetPack's packages name it, newest first.
_NVINFER = ("libnvinfer11", "libnvinfer10", "libnvinfer8", "tensorrt")


@dataclass(frozen=True)
class Libraries:
    """Which of them the interpreter finds, by import name.

    `torch_cuda` is the CUDA version that torch was built for; None: it was built for the CPU, or there is none.
    """

    names: frozenset[str]
    torch_cuda: str | None = None

    def has(self, *names: str) -> bool:
        return self.names.issuperset(names)


def find_libraries(find: Callable[[str], object] = importlib.util.find_spec) -> Libraries:
    """What the interpreter can import; `sam2edge doctor` tries whether it works."""
    names = frozenset(name for name in DISTRIBUTIONS if _can_find(find, name))
    return Libraries(names, _read_torch_cuda(find) if "torch" in names else None)


def library_version(name: str) -> str | None:
    """The installed version of a library by its import name; None if unknown."""
    from importlib import metadata  # 20 ms, which loading a model does not pay

    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def find_old_tensorrt(version: str | None) -> str | None:
    """Why this version of `tensorrt` cannot build or run engines; None where it can, or is not known."""
    numbers = parse_release(version)
    if not numbers or numbers >= OLDEST_TENSORRT:
        return None
    return f"TensorRT {version} is too old: it has no strongly typed networks"


def find_old_pycuda(pycuda: str | None, numpy: str | None, cuda: str | None) -> str | None:
    """Why this version of pycuda does not work with these versions of numpy and CUDA; None where it does."""
    numbers = parse_release(pycuda)
    if not numbers:
        return None
    if parse_release(cuda) >= (13,) and numbers < _PYCUDA_FOR_CUDA_13:
        return f"pycuda {pycuda} does not work with CUDA {cuda}; pip install --upgrade 'pycuda>=2025.1.2'"
    if parse_release(numpy) >= (2,) and numbers < _PYCUDA_FOR_NUMPY_2:
        return f"pycuda {pycuda} does not work with numpy {numpy}; pip install --upgrade 'pycuda>=2024.1.2'"
    return None


def find_pycuda_install(which: Callable[[str], str | None] = shutil.which, root: Path = Path("/")) -> str:
    """The command that installs pycuda. It is compiled, and finds CUDA by `nvcc` on PATH alone."""
    install = "pip install 'pycuda>=2024.1.2'"
    if which("nvcc") is not None:
        return install
    if exists(root / "usr/local/cuda/bin/nvcc"):
        return f"PATH=/usr/local/cuda/bin:$PATH {install}"
    return f"install the CUDA toolkit (on a Jetson: sudo apt install nvidia-jetpack), then {install}"


def parse_release(version: str | None) -> tuple[int, ...]:
    """ "10.3.0.30" -> (10, 3, 0, 30), up to the first part that is no number; empty where no version is known."""
    numbers = []
    for part in (version or "").split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _can_find(find: Callable[[str], object], name: str) -> bool:
    try:
        return find(name) is not None
    except (ImportError, ValueError):  # ValueError: sys.modules holds None, or a module without a specification
        return False


def _read_torch_cuda(find: Callable[[str], object]) -> str | None:
    """From torch/version.py, because importing torch takes seconds."""
    origin = getattr(find("torch"), "origin", None)
    text = read_text(Path(origin).with_name("version.py")) if origin else ""
    found = re.search(r"^cuda[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def read_cuda_version(root: Path = Path("/")) -> str | None:
    """The CUDA toolkit or runtime below /usr/local ("12.6.11"); None where there is none."""
    for folder in [root / "usr/local/cuda", *reversed(list(list_children(root / "usr/local", "cuda-*")))]:
        try:
            content = json.loads(read_text(folder / "version.json") or "{}")
        except ValueError:
            content = {}
        stated = content.get("cuda", {}) if isinstance(content, dict) else {}
        version = stated.get("version") if isinstance(stated, dict) else None
        if isinstance(version, str) and version:
            return version
        old = re.search(r"CUDA Version ([\d.]+)", read_text(folder / "version.txt"))  # CUDA 10
        if old:
            return old[1]
    return None


def read_tensorrt_version(root: Path = Path("/")) -> str | None:
    """TensorRT as the system's packages have it ("10.3.0.30"); None where they have none."""
    packages = read_package_versions(root, _NVINFER)
    version = next((packages[name] for name in _NVINFER if name in packages), None)
    return version.partition("-")[0] if version else None
