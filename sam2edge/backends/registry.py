"""The backends by name, the order in which "auto" tries them, and why each was passed over."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from typing import NamedTuple

from sam2edge.backends.base import Backend, BackendRequest
from sam2edge.datatypes import BackendReport
from sam2edge.errors import BackendUnavailableError, InvalidInputError, Sam2EdgeError

_log = logging.getLogger("sam2edge")


class _Entry(NamedTuple):
    location: str
    install: str


BACKENDS = {
    "onnxruntime": _Entry("sam2edge.backends.onnxruntime_backend:OnnxRuntimeBackend", "pip install onnxruntime"),
    "torch": _Entry("sam2edge.backends.torch_backend:TorchBackend", "pip install 'sam2edge[torch]'"),
}

# The fastest first: a GPU, then the graphs, then plain torch on the CPU.
_AUTO = (("torch", "cuda"), ("onnxruntime", None), ("torch", "cpu"))


def open_backend(name: str, request: BackendRequest) -> tuple[Backend, BackendReport]:
    """Opens the backend `name`, or with "auto" the first that works.

    Asked for by name, a backend that cannot be opened raises its own error. With "auto" each one passed over is
    logged once with its reason; when none is left, BackendUnavailableError tells all reasons.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise InvalidInputError(
                "unknown backend", expected=f"auto or one of {', '.join(sorted(BACKENDS))}", got=repr(name)
            )
        return _load(name).open(request), BackendReport(name)
    passed_over: list[tuple[str, str]] = []
    for candidate, device in _AUTO:
        if request.device is not None and device is not None and not request.device.startswith(device):
            continue
        label = f"{candidate} on {device}" if device else candidate
        try:
            backend = _load(candidate).open(_on_device(request, device))
        except Sam2EdgeError as error:
            passed_over.append((label, str(error)))
            _log.info("backend %s passed over: %s", label, error)
            continue
        return backend, BackendReport(label, tuple(passed_over))
    reasons = " | ".join(f"{label}: {reason}" for label, reason in passed_over)
    raise BackendUnavailableError(f"no backend can run {request.variant.model_id}", got=reasons)


def _on_device(request: BackendRequest, device: str | None) -> BackendRequest:
    if request.device is not None:
        return request
    return replace(request, device=device)


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
