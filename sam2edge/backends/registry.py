"""The backends by name, the order in which "auto" tries them, and why each was passed over."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from sam2edge.backends.base import Backend, BackendRequest
from sam2edge.backends.fallback import FallbackBackend, no_backend
from sam2edge.contract import graph_specs
from sam2edge.datatypes import BackendReport
from sam2edge.errors import BackendUnavailableError, CheckpointError, InvalidInputError, Sam2EdgeError
from sam2edge.machine.device import has_nvidia_gpu
from sam2edge.store.manifest import check_files
from sam2edge.store.paths import PRECISIONS, find_engines

_log = logging.getLogger("sam2edge")


class _Entry(NamedTuple):
    location: str
    install: str


BACKENDS = {
    "tensorrt": _Entry(
        "sam2edge.backends.tensorrt.backend:TensorRtBackend",
        "sudo apt install python3-libnvinfer and pip install 'sam2edge[jetson]' on Jetson, else "
        "pip install tensorrt pycuda",
    ),
    "onnxruntime": _Entry("sam2edge.backends.onnxruntime:OnnxRuntimeBackend", "pip install onnxruntime"),
    "torch": _Entry("sam2edge.backends.torch:TorchBackend", "pip install 'sam2edge[torch]'"),
}

# The fastest first: engines, then torch on a GPU, then the graphs, then plain torch on the CPU.
_AUTO = (("tensorrt", "cuda"), ("torch", "cuda"), ("onnxruntime", "cpu"), ("torch", "cpu"))


Build = Callable[[], None]
"""Builds the engines of a request where they are missing. Raises Sam2EdgeError with what went wrong."""

_Step = tuple[str, Callable[[], Backend]]  # what the report calls it, and what opens it


def open_backend(name: str, request: BackendRequest, build: Build | None = None) -> tuple[Backend, BackendReport]:
    """Opens the backend `name`, or with "auto" the first that works on the requested device (None: on any).

    Asked for by name, a backend that cannot be opened raises its own error. With "auto" each one passed over is
    logged with its reason, one that fails in its first inference gives way to the next (and `backend.report` with
    it), and when none is left, the error tells what to do: CheckpointError where weights are at fault, else
    BackendUnavailableError with all reasons. `build`, if given, is called once where no engine can be used.
    """
    if name == "auto":
        backend = FallbackBackend(_Search(request, _auto_steps(request, build)))
        assert backend.report is not None
        return backend, backend.report
    if name not in BACKENDS:
        close = difflib.get_close_matches(str(name).lower(), BACKENDS, n=1)
        raise InvalidInputError(
            "unknown backend",
            expected=f"auto or one of {', '.join(sorted(BACKENDS))}",
            got=repr(name),
            remedy=f"did you mean {close[0]}?" if close else None,
        )
    if name != "tensorrt":
        return _load(name).open(request), BackendReport(name)
    search = _Search(request, _engine_steps(request, build))
    label, opened = search.next()
    return opened, search.report(label if search.num_skipped else name)


class _Search:
    """Goes down a list of backends once, keeping the reason of each step."""

    def __init__(self, request: BackendRequest, steps: Sequence[_Step]) -> None:
        self._request = request
        self._rest = list(steps)
        self._errors: list[tuple[str, Exception]] = []

    @property
    def num_skipped(self) -> int:
        return len(self._errors)

    def next(self) -> tuple[str, Backend]:
        while self._rest:
            label, open_it = self._rest.pop(0)
            try:
                return label, open_it()
            except Sam2EdgeError as error:
                self.pass_over(label, error)
        for _, reason in self._errors:
            if isinstance(reason, CheckpointError):
                raise reason
        if len(self._errors) == 1:
            raise self._errors[0][1]
        raise no_backend(self._request.variant.model_id, self._errors, self._request.device)

    def pass_over(self, label: str, error: Exception) -> None:
        self._errors.append((label, error))
        _log.info("backend %s passed over: %s", label, error)

    def report(self, chosen: str) -> BackendReport:
        reasons = ((label, str(error) or type(error).__name__) for label, error in self._errors)
        return BackendReport(chosen, tuple(reasons))


def _auto_steps(request: BackendRequest, build: Build | None) -> list[_Step]:
    steps: list[_Step] = []
    for name, device in _AUTO:
        if request.device is not None and not request.device.startswith(device):
            continue
        if name == "tensorrt":
            steps += _engine_steps(request, build)
        else:
            steps.append((f"{name} on {device}", partial(_open_on, name, request, device)))
    return steps


def _engine_steps(request: BackendRequest, build: Build | None) -> list[_Step]:
    """Engines in every precision that will do, float16 first, then those still to be built."""
    wanted = PRECISIONS if request.precision == "auto" else (request.precision,)
    folders = {p: find_engines(request.variant, request.image_size, p) for p in wanted}
    built = {precision: folder for precision, folder in folders.items() if folder is not None}
    steps: list[_Step] = [
        (
            f"tensorrt {precision} on cuda" if len(built) > 1 else "tensorrt on cuda",
            partial(_open_engines, replace(request, engine_dir=folder)),
        )
        for precision, folder in built.items()
    ]
    if build is not None:
        label = "tensorrt built anew on cuda" if built else "tensorrt on cuda"
        steps.append((label, partial(_build_and_open, request, build)))
    return steps or [("tensorrt on cuda", partial(_open_engines, replace(request, engine_dir=None)))]


def _build_and_open(request: BackendRequest, build: Build) -> Backend:
    _require_gpu()  # engines built without one would be of no use here, and a build takes minutes
    _load("tensorrt")
    try:
        build()
    except Sam2EdgeError as error:
        _log.warning("engines of %s were not built: %s", request.variant.model_id, error)
        raise
    folder = find_engines(request.variant, request.image_size, request.precision)
    return _open_engines(replace(request, engine_dir=folder))


def _open_engines(request: BackendRequest) -> Backend:
    """Whether there are engines, and what was built, is told first, also where no library could load them."""
    variant, size = request.variant, request.image_size
    if request.engine_dir is None:
        raise BackendUnavailableError(
            f"no engine of {variant.model_id} at image size {size} was built",
            remedy=f"sam2edge build {variant.model_id} --size {size}",
        )
    check_files(request.engine_dir, tuple(graph_specs(variant, size)), variant, size, request.checkpoint_sha256)
    return _open_on("tensorrt", request, "cuda")


def _open_on(name: str, request: BackendRequest, device: str) -> Backend:
    # Looked at before torch is loaded: that takes seconds, to find no GPU.
    if device == "cuda":
        _require_gpu()
    return _load(name).open(replace(request, device=request.device or device))


def _require_gpu() -> None:
    if not has_nvidia_gpu():
        raise BackendUnavailableError("no NVIDIA GPU on this machine")


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
