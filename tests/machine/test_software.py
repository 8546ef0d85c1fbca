"""Which libraries are there, and their versions, without loading them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sam2edge.machine.board import read_package_versions
from sam2edge.machine.software import (
    Libraries,
    find_libraries,
    find_old_pycuda,
    find_old_tensorrt,
    find_pycuda_install,
    library_version,
    read_cuda_version,
    read_tensorrt_version,
)
from tests.trees import write_tree


def _finding(**origins: str) -> Any:
    return lambda name: SimpleNamespace(origin=origins[name]) if name in origins else None


@pytest.mark.parametrize(
    ("version_file", "cuda"),
    [
        ("__version__ = '2.8.0'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n", "12.6"),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", None),
        ("\0\xff", None),
        (None, None),
    ],
)
def test_what_torch_was_built_for(version_file: str | None, cuda: str | None, tmp_path: Path) -> None:
    if version_file is not None:
        write_tree(tmp_path, {"torch/version.py": version_file})
    libraries = find_libraries(_finding(torch=str(tmp_path / "torch/__init__.py"), pycuda="x"))
    assert libraries == Libraries(frozenset({"torch", "pycuda"}), cuda)
    assert libraries.has("torch", "pycuda") and not libraries.has("torch", "onnxruntime")


@pytest.mark.parametrize("error", [ImportError, ValueError])
def test_modules_that_cannot_be_looked_for(error: type[Exception]) -> None:
    def find(name: str) -> Any:
        raise error(name)

    assert find_libraries(find) == Libraries(frozenset())


def test_nothing_is_loaded_to_find_out() -> None:
    program = """
import sys
from sam2edge.machine.software import find_libraries, library_version
libraries = find_libraries()
versions = [library_version(name) for name in libraries.names]
assert "onnxruntime" in libraries.names and all(versions), (libraries, versions)
assert not {"onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "pycuda"} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_library_that_no_package_tells_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2edge.machine.software.DISTRIBUTIONS", {"odd": ("no-such-package-anywhere",)})
    assert library_version("odd") is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"usr/local/cuda-12.6/version.json": '{"cuda": {"version": "12.6.11"}}'}, "12.6.11"),
        ({"usr/local/cuda/version.txt": "CUDA Version 10.2.300\n"}, "10.2.300"),
        ({"usr/local/cuda/version.json": "[1, 2"}, None),
        ({"usr/local/cuda/version.json": '["cuda"]'}, None),
        ({"usr/local/cuda/version.json": '{"cuda": "12"}'}, None),
        ({}, None),
    ],
)
def test_cuda(files: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    assert read_cuda_version(write_tree(tmp_path, files)) == expected


def test_packages_that_are_removed_do_not_count(tmp_path: Path) -> None:
    status = (
        "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n\n"
        "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.5.2-1\n\n"
        "Package: nvidia-jetpack\nStatus: install ok installed\nDescription: no version\n"
    )
    root = write_tree(tmp_path, {"var/lib/dpkg/status": status})
    assert read_package_versions(root, ("libnvinfer10", "libnvinfer8", "nvidia-jetpack")) == {
        "libnvinfer10": "10.3.0.30-1+cuda12.5"
    }
    assert read_tensorrt_version(root) == "10.3.0.30"
    assert read_tensorrt_version(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("version", "refused"),
    [("8.6.2", True), ("10.0.1", True), ("10.3.0.30", False), ("10.16.0.20", False), ("11.1", False), (None, False)],
)
def test_tensorrt_of_jetpack_6_0_is_too_old(version: str | None, refused: bool) -> None:
    reason = find_old_tensorrt(version)
    assert (reason is not None) == refused
    assert reason is None or "no strongly typed networks" in reason


@pytest.mark.parametrize(
    ("pycuda", "numpy", "cuda", "needed"),
    [
        ("2024.1", "1.26.4", "12.6", None),
        ("2024.1", "2.2.6", "12.6", "2024.1.2"),
        ("2024.1.2", "2.2.6", "12.6", None),
        ("2024.1.2", "2.2.6", "13.2.0", "2025.1.2"),
        ("2025.1.2", "2.2.6", "13.2.0", None),
        (None, "2.2.6", "13.2.0", None),
    ],
)
def test_pycuda_for_numpy_and_cuda(pycuda: str | None, numpy: str, cuda: str, needed: str | None) -> None:
    reason = find_old_pycuda(pycuda, numpy, cuda)
    assert (reason is None) if needed is None else (f"pycuda>={needed}" in str(reason))


def test_pycuda_is_compiled_with_the_nvcc_on_path(tmp_path: Path) -> None:
    assert find_pycuda_install(lambda name: "/usr/bin/nvcc", tmp_path).startswith("pip install 'pycuda")
    assert "sudo apt install nvidia-jetpack" in find_pycuda_install(lambda name: None, tmp_path)
    nvcc = tmp_path / "usr/local/cuda/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    assert find_pycuda_install(lambda name: None, tmp_path).startswith("PATH=/usr/local/cuda/bin:$PATH pip install")
