"""The backends by name, the order in which "auto" tries them, and why each was skipped."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from sam2edge.backends.base import Backend, BackendRequest, MemoryInputs
from sam2edge.contract import FOREGROUND, graph_specs
from sam2edge.datatypes import BackendReport
from sam2edge.errors import BackendUnavailableError, CheckpointError, InvalidInputError, Sam2EdgeError
from sam2edge.machine.device import has_nvidia_gpu
from sam2edge.machine.processor import has_bfloat16
from sam2edge.store.engine_checks import check_files
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
    "openvino": _Entry("sam2edge.backends.openvino:OpenVinoBackend", "pip install 'sam2edge[openvino]'"),
    "onnxruntime": _Entry("sam2edge.backends.onnxruntime:OnnxRuntimeBackend", "pip install onnxruntime"),
    "torch": _Entry("sam2edge.backends.torch:TorchBackend", "pip install 'sam2edge[torch]'"),
}

AUTO_ORDER = (
    ("tensorrt", "cuda"),
    ("torch", "cuda"),
    ("openvino", "cpu"),
    ("onnxruntime", "cpu"),
    ("torch", "cpu"),
)
"""Backend and device, the fastest first: engines, torch on a GPU, the graphs, torch on the CPU."""

Build = Callable[[], None]
"""Builds the engines of a request where they are missing. Raises Sam2EdgeError with what went wrong."""


class Candidate(NamedTuple):
    """One way to run a model: what the report calls it, and what opens it."""

    label: str
    open: Callable[[], Backend]


class BackendSearch:
    """Goes down a list of candidates once; each one that cannot be used is skipped, with its reason."""

    def __init__(self, request: BackendRequest, candidates: Iterator[Candidate], probe: bool, tracking: bool) -> None:
        self._request = request
        self._candidates = candidates
        self._probe = probe
        self._tracking = tracking
        self._skipped: list[tuple[str, Exception]] = []
        self._label = ""

    def open_next(self, failure: Exception | None = None) -> Backend:
        """The next candidate that opens and, with "auto", computes; `failure` is why the one before is given up.

        When none is left, raises CheckpointError where weights are at fault, the only reason if there is just one,
        and else BackendUnavailableError with all reasons.
        """
        if failure is not None:
            self._skip(self._label, failure)
        for label, open_candidate in self._candidates:
            try:
                backend = open_candidate()
                if self._probe:
                    probe(backend, self._tracking)
            except Exception as error:  # whatever a driver or a native library raises
                self._skip(label, error)
                continue
            self._label = label
            return backend
        for _, reason in self._skipped:
            if isinstance(reason, CheckpointError):
                raise reason
        if len(self._skipped) == 1:
            raise self._skipped[0][1]
        # How to build engines is no help on a machine without a GPU.
        reasons = " | ".join(
            f"{label}: {_describe(error) if has_nvidia_gpu() else getattr(error, 'problem', error)}"
            if label.startswith("tensorrt")
            else f"{label}: {_describe(error)}"
            for label, error in self._skipped
        )
        raise BackendUnavailableError(
            f"no backend can run {self._request.variant.model_id}",
            got=reasons or f"device {self._request.device!r}",
            remedy=None
            if self._request.variant.checkpoint is None
            else f"sam2edge models install {self._request.variant.model_id}",
        )

    @property
    def report(self) -> BackendReport:
        """Which candidate is in use, and why each better one is not."""
        return BackendReport(self._label, tuple((label, _describe(error)) for label, error in self._skipped))

    def _skip(self, label: str, error: Exception) -> None:
        self._skipped.append((label, error))
        _log.info("backend %s skipped: %s", label, _describe(error))


def search_backends(
    name: str, request: BackendRequest, build: Build | None = None, tracking: bool = False
) -> BackendSearch:
    """The candidates for the backend `name`; `open_next` of the result opens one.

    With "auto" they are those of `AUTO_ORDER` on the requested device (None: on any), and each must encode an image
    and answer a prompt before it is taken (`tracking`: and track an object). By name there is one candidate, for
    "tensorrt" one for each set of engines, and it is not tried. `build`, if given, is called once where no engines
    can be used.
    """
    if name == "auto":
        return BackendSearch(request, _auto_candidates(request, build), True, tracking)
    if name not in BACKENDS:
        close = difflib.get_close_matches(str(name).lower(), BACKENDS, n=1)
        raise InvalidInputError(
            "unknown backend",
            expected=f"auto or one of {', '.join(sorted(BACKENDS))}",
            got=repr(name),
            remedy=f"did you mean {close[0]}?" if close else None,
        )
    if name == "tensorrt":
        return BackendSearch(request, _engine_candidates(request, build), False, tracking)
    only = Candidate(name, lambda: load_backend(name).open(request))
    return BackendSearch(request, iter([only]), False, tracking)


def probe(backend: Backend, tracking: bool) -> None:
    """Runs each part of a model once, on a grey image, and closes the backend where one fails.

    A plan can load and still not run; and memory can run out only then.
    """
    size = backend.image_size
    try:
        features = backend.encode(np.zeros((1, 3, size, size), np.float32))
        middle, label = np.full((1, 1, 2), size / 2, np.float32), np.full((1, 1), FOREGROUND, np.int32)
        decoded = backend.decode(features, middle, label)
        if tracking:
            memory = backend.encode_memory(features, np.ones((size // 4, size // 4), np.float32), 1.0, binarise=True)
            age = np.zeros(1, np.int32)
            inputs = MemoryInputs([memory], age, decoded.object_pointers[:, 0], age.astype(np.float32))
            backend.decode_each([backend.attend_memory(features, inputs)])
    except Exception:
        with suppress(Exception):  # its device may be in a bad state
            backend.close()
        raise


def load_backend(name: str) -> type[Backend]:
    """The class of a backend. Raises BackendUnavailableError where its library is not installed."""
    entry = BACKENDS[name]
    module_name, _, class_name = entry.location.partition(":")
    try:
        backend: type[Backend] = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {name} cannot be imported", got=str(error), remedy=entry.install
        ) from error
    return backend


def openvino_is_faster() -> bool:
    """Whether it is installed, and the processor has bfloat16: in float32 it gains nothing on onnxruntime."""
    return importlib.util.find_spec("openvino") is not None and has_bfloat16()


def _auto_candidates(request: BackendRequest, build: Build | None) -> Iterator[Candidate]:
    for name, device in AUTO_ORDER:
        if request.device is not None and not request.device.startswith(device):
            continue
        if name == "openvino" and not (request.precision == "auto" and openvino_is_faster()):
            continue
        if name == "tensorrt":
            yield from _engine_candidates(request, build)
        else:
            yield Candidate(f"{name} on {device}", partial(_open_on, name, request, device))


def _engine_candidates(request: BackendRequest, build: Build | None) -> Iterator[Candidate]:
    """Engines in every precision that will do, float16 first, then those still to be built."""
    wanted = PRECISIONS if request.precision == "auto" else (request.precision,)
    folders = {p: find_engines(request.variant, request.image_size, p) for p in wanted}
    built = {precision: folder for precision, folder in folders.items() if folder is not None}
    for precision, folder in built.items():
        label = f"tensorrt {precision} on cuda" if len(built) > 1 else "tensorrt on cuda"
        yield Candidate(label, partial(_open_engines, replace(request, engine_dir=folder)))
    if build is not None:
        label = "tensorrt built anew on cuda" if built else "tensorrt on cuda"
        yield Candidate(label, partial(_build_and_open, request, build))
    elif not built:
        yield Candidate("tensorrt on cuda", partial(_open_engines, replace(request, engine_dir=None)))


def _build_and_open(request: BackendRequest, build: Build) -> Backend:
    _require_gpu()  # engines built without one would be of no use here, and a build takes minutes
    load_backend("tensorrt")
    try:
        build()
    except Sam2EdgeError as error:
        _log.warning("%s", error)
        raise
    folder = find_engines(request.variant, request.image_size, request.precision)
    return _open_engines(replace(request, engine_dir=folder))


def _open_engines(request: BackendRequest) -> Backend:
    """Checks the files before the GPU and the libraries, so that what was built wrong is told everywhere."""
    variant, size = request.variant, request.image_size
    if request.engine_dir is None:
        raise BackendUnavailableError(
            f"no engine of {variant.model_id} at image size {size} was built",
            remedy=f"sam2edge build {variant.model_id} --size {size}",
        )
    graphs = tuple(graph_specs(variant, size))
    manifests = check_files(request.engine_dir, graphs, variant, size, request.checkpoint_sha256)
    return _open_on("tensorrt", replace(request, engine_manifests=manifests), "cuda")


def _open_on(name: str, request: BackendRequest, device: str) -> Backend:
    # Looked at before torch is loaded: that takes seconds, to find no GPU.
    if device == "cuda":
        _require_gpu()
    return load_backend(name).open(replace(request, device=request.device or device))


def _require_gpu() -> None:
    if not has_nvidia_gpu():
        raise BackendUnavailableError("no NVIDIA GPU on this machine")


def _describe(error: Exception) -> str:
    """The text of an error; of one that is not ours with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, Sam2EdgeError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
