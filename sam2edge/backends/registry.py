"""The backends by name, the order in which "auto" tries them, and why each was passed over."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from typing import NamedTuple

from sam2edge.backends.base import Backend, BackendRequest
from sam2edge.backends.fallback import FallbackBackend, no_backend
from sam2edge.contract import graph_specs
from sam2edge.datatypes import BackendReport
from sam2edge.device import has_nvidia_gpu
from sam2edge.errors import BackendUnavailableError, CheckpointError, InvalidInputError, Sam2EdgeError
from sam2edge.manifest import check_files

_log = logging.getLogger("sam2edge")


class _Entry(NamedTuple):
    location: str
    install: str


BACKENDS = {
    "tensorrt": _Entry(
        "sam2edge.backends.tensorrt_backend:TensorRtBackend",
        "sudo apt install python3-libnvinfer and pip install 'sam2edge[jetson]' on Jetson, else "
        "pip install tensorrt pycuda",
    ),
    "onnxruntime": _Entry("sam2edge.backends.onnxruntime_backend:OnnxRuntimeBackend", "pip install onnxruntime"),
    "torch": _Entry("sam2edge.backends.torch_backend:TorchBackend", "pip install 'sam2edge[torch]'"),
}

# The fastest first: engines, then torch on a GPU, then the graphs, then plain torch on the CPU.
_AUTO = (("tensorrt", "cuda"), ("torch", "cuda"), ("onnxruntime", "cpu"), ("torch", "cpu"))


def open_backend(name: str, request: BackendRequest) -> tuple[Backend, BackendReport]:
    """Opens the backend `name`, or with "auto" the first that works on the requested device (None: on any).

    Asked for by name, a backend that cannot be opened raises its own error. With "auto" each one passed over is
    logged with its reason, one that fails in its first inference gives way to the next (and `backend.report` with
    it), and when none is left, the error tells what to do: CheckpointError where weights are at fault, else
    BackendUnavailableError with all reasons.
    """
    if name == "auto":
        backend = FallbackBackend(_Search(request))
        assert backend.report is not None
        return backend, backend.report
    if name not in BACKENDS:
        raise InvalidInputError(
            "unknown backend", expected=f"auto or one of {', '.join(sorted(BACKENDS))}", got=repr(name)
        )
    _check_engines(name, request)
    return _load(name).open(request), BackendReport(name)


class _Search:
    """Goes down the list of "auto" once, keeping the reason of each step."""

    def __init__(self, request: BackendRequest) -> None:
        self._request = request
        wanted = request.device
        self._rest = [(n, d) for n, d in _AUTO if wanted is None or wanted.startswith(d)]
        self._errors: list[tuple[str, Exception]] = []

    def next(self) -> tuple[str, Backend]:
        while self._rest:
            candidate, device = self._rest.pop(0)
            label = f"{candidate} on {device}"
            try:
                return label, _open_on(candidate, self._request, device)
            except Sam2EdgeError as error:
                self.pass_over(label, error)
        for _, reason in self._errors:
            if isinstance(reason, CheckpointError):
                raise reason
        raise no_backend(self._request.variant.model_id, self._errors, self._request.device)

    def pass_over(self, label: str, error: Exception) -> None:
        self._errors.append((label, error))
        _log.info("backend %s passed over: %s", label, error)

    def report(self, chosen: str) -> BackendReport:
        reasons = ((label, str(error) or type(error).__name__) for label, error in self._errors)
        return BackendReport(chosen, tuple(reasons))


def _open_on(name: str, request: BackendRequest, device: str) -> Backend:
    _check_engines(name, request)
    # Looked at before torch is loaded: that takes seconds, to find no GPU.
    if device == "cuda" and not has_nvidia_gpu():
        raise BackendUnavailableError("no NVIDIA GPU on this machine")
    return _load(name).open(replace(request, device=request.device or device))


def _check_engines(name: str, request: BackendRequest) -> None:
    """Whether there are engines, and what was built: told first, also where no library could load them."""
    if name != "tensorrt":
        return
    variant, size = request.variant, request.image_size
    if request.engine_dir is None:
        raise BackendUnavailableError(
            f"no engine of {variant.model_id} at image size {size} was built",
            remedy=f"sam2edge build {variant.model_id} --size {size}",
        )
    check_files(request.engine_dir, tuple(graph_specs(variant, size)), variant, size, request.checkpoint_sha256)


def _load(name: str) -> type[Backend]:
    entry = BACKENDS[name]
    module_name, _, class_name = entry.location.partition(":")
    try:
        backend: type[Backend] = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {name} cannot be imported", got=str(error), remedy=entry.install
        ) from error
    return backend
