"""The backends by name, the order in which "auto" tries them, and why each was passed over."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from typing import NamedTuple

from sam2edge.backends.base import Backend, BackendRequest
from sam2edge.datatypes import BackendReport
from sam2edge.device import has_nvidia_gpu
from sam2edge.errors import BackendUnavailableError, CheckpointError, InvalidInputError, Sam2EdgeError

_log = logging.getLogger("sam2edge")


class _Entry(NamedTuple):
    location: str
    install: str


BACKENDS = {
    "onnxruntime": _Entry("sam2edge.backends.onnxruntime_backend:OnnxRuntimeBackend", "pip install onnxruntime"),
    "torch": _Entry("sam2edge.backends.torch_backend:TorchBackend", "pip install 'sam2edge[torch]'"),
}

# The fastest first: a GPU, then the graphs, then plain torch on the CPU.
_AUTO = (("torch", "cuda"), ("onnxruntime", "cpu"), ("torch", "cpu"))


def open_backend(name: str, request: BackendRequest) -> tuple[Backend, BackendReport]:
    """Opens the backend `name`, or with "auto" the first that works on the requested device (None: on any).

    Asked for by name, a backend that cannot be opened raises its own error. With "auto" each one passed over is
    logged with its reason; when none is left, the error tells what to do: CheckpointError where weights are at
    fault, else BackendUnavailableError with all reasons.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise InvalidInputError(
                "unknown backend", expected=f"auto or one of {', '.join(sorted(BACKENDS))}", got=repr(name)
            )
        return _load(name).open(request), BackendReport(name)
    errors: list[tuple[str, Sam2EdgeError]] = []
    for candidate, device in _AUTO:
        if request.device is not None and not request.device.startswith(device):
            continue
        label = f"{candidate} on {device}"
        try:
            backend = _open_on(candidate, request, device)
        except Sam2EdgeError as error:
            errors.append((label, error))
            _log.info("backend %s passed over: %s", label, error)
            continue
        return backend, BackendReport(label, tuple((label, str(error)) for label, error in errors))
    for _, reason in errors:
        if isinstance(reason, CheckpointError):
            raise reason
    raise BackendUnavailableError(
        f"no backend can run {request.variant.model_id}",
        got=" | ".join(f"{label}: {error}" for label, error in errors) or f"device {request.device!r}",
    )


def _open_on(name: str, request: BackendRequest, device: str) -> Backend:
    # Looked at before torch is loaded: that takes seconds, to find no GPU.
    if device == "cuda" and not has_nvidia_gpu():
        raise BackendUnavailableError("no NVIDIA GPU on this machine")
    return _load(name).open(replace(request, device=request.device or device))


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
