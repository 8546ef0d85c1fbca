"""Stand-ins for pycuda and TensorRT's runtime, in place of the real ones."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sam2edge.backends import registry
from sam2edge.files import file_sha256
from sam2edge.store import paths
from tests.backends.fake_cuda import FakeDriver, FakeTensorRt
from tests.boards import ORIN

ASSETS = paths.ASSETS
MODULES = (
    "sam2edge.backends.tensorrt.memory",
    "sam2edge.backends.tensorrt.backend",
    "sam2edge.backends.tensorrt.inputs",
    "sam2edge.backends.tensorrt.engine",
    "sam2edge.backends.tensorrt.runtime",
    "sam2edge.backends.tensorrt.runtime_cache",
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """pycuda on a device of 1 GiB, and the modules that use it loaded anew."""
    found = FakeDriver()
    pycuda = ModuleType("pycuda")
    pycuda.driver = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", found)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
        package, _, own = name.rpartition(".")
        monkeypatch.delattr(importlib.import_module(package), own, raising=False)
    return found


@pytest.fixture
def device(driver: FakeDriver) -> Any:
    return importlib.import_module(MODULES[0]).CudaDevice()


@pytest.fixture
def tensorrt(driver: FakeDriver, written_engines: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """TensorRT on an Orin, with engines that compute as the embedded graphs do."""
    library = FakeTensorRt(driver)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    for engine in written_engines.glob("*.engine"):
        rewrite_engine(engine, str(ASSETS / f"{engine.stem}.onnx").encode())
    backend = importlib.import_module(MODULES[1])
    monkeypatch.setattr(backend, "find_gpu", lambda index=0: replace(ORIN, index=index) if index < 2 else None)
    monkeypatch.setattr(registry, "has_nvidia_gpu", lambda: True)
    return library


def rewrite_engine(engine: Path, content: bytes) -> None:
    engine.write_bytes(content)
    path = engine.with_name(f"{engine.name}.json")
    stated = {"sha256": file_sha256(engine), "size_bytes": len(content)}
    path.write_text(json.dumps(json.loads(path.read_text()) | stated))
