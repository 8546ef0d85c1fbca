"""The TensorRT library that builds: which one is installed, its version, and whether it can build our graphs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass

from sam2edge.errors import BackendUnavailableError
from sam2edge.machine.software import TENSORRT_INSTALL, TENSORRT_LIBRARIES, TENSORRT_UPGRADE

_PROBE = """
import importlib, json, sys
library = importlib.import_module(sys.argv[1])
flags = getattr(library, "NetworkDefinitionCreationFlag", None)
strongly_typed = hasattr(flags, "STRONGLY_TYPED") or int(library.__version__.split(".")[0]) >= 11
print(json.dumps([library.__version__, strongly_typed]))
"""


@dataclass(frozen=True)
class Library:
    """An installed library: the name it is imported by ("tensorrt" or "tensorrt_rtx"), and its version."""

    name: str
    version: str


def find_library() -> Library:
    """The first of `TENSORRT_LIBRARIES` that is installed.

    It is asked once, in a process of its own: importing it takes 100 MB. Raises BackendUnavailableError where none is
    installed, where it cannot be imported, and where it is too old for strongly typed networks.
    """
    name = next((name for name in TENSORRT_LIBRARIES if importlib.util.find_spec(name) is not None), None)
    if name is None:
        raise BackendUnavailableError(
            "no TensorRT is installed",
            expected=" or ".join(TENSORRT_LIBRARIES),
            got="neither",
            remedy=f"{TENSORRT_INSTALL}, or pip install 'sam2edge[rtx]'",
        )
    asked = subprocess.run([sys.executable, "-c", _PROBE, name], capture_output=True, text=True, errors="replace")
    try:
        version, strongly_typed = json.loads(asked.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = asked.stderr.strip().splitlines()
        reason = said[-1] if said else f"exit status {asked.returncode}"
        raise BackendUnavailableError(f"{name} cannot be imported", got=reason, remedy=TENSORRT_INSTALL) from None
    if not strongly_typed:
        raise BackendUnavailableError(
            f"{name} {version} is too old to build engines: it has no strongly typed networks",
            expected="TensorRT 10.3 or later",
            got=version,
            remedy=TENSORRT_UPGRADE,
        )
    return Library(name, version)


def check_compiler(compiler: str) -> None:
    """Raises BackendUnavailableError, without loading anything, where `compiler` needs what is not installed."""
    if compiler != "torch2trt":
        return
    needed = {
        "torch2trt": "pip install git+https://github.com/NVIDIA-AI-IOT/torch2trt",
        "onnx_graphsurgeon": "pip install onnx-graphsurgeon",
        "onnx": "pip install 'sam2edge[export]'",
        "torch": "pip install 'sam2edge[export]'",
        "tensorrt": TENSORRT_INSTALL,
    }
    for name, install in needed.items():
        if importlib.util.find_spec(name) is None:
            purpose = "" if name == "torch2trt" else ", which torch2trt needs,"
            raise BackendUnavailableError(f"{name}{purpose} is not installed", remedy=install)


def check_torch2trt_version(library: Library) -> None:
    """Raises BackendUnavailableError where torch2trt cannot drive this library."""
    major = library.version.partition(".")[0]
    if library.name != "tensorrt" or (major.isdigit() and int(major) >= 11):
        raise BackendUnavailableError(
            "torch2trt cannot drive this library: it sets flags that TensorRT 11 no longer has",
            expected="tensorrt 10",
            got=f"{library.name} {library.version}",
            remedy="build without --compiler torch2trt",
        )
