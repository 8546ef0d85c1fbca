"""A model's backend that gives way to the next one when it fails in its first inference."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend, BackendRequest, DecodedPrompts, FloatArray, IntArray, MemoryInputs
from sam2edge.datatypes import BackendReport
from sam2edge.errors import BackendUnavailableError, InvalidInputError, Sam2EdgeError
from sam2edge.imaging.preprocess import normalised

_log = logging.getLogger("sam2edge")

T = TypeVar("T")


class Search(Protocol):
    """The backends still to be tried."""

    def next(self) -> tuple[str, Backend]:
        """The next one that opens, and its label. Raises Sam2EdgeError when none is left."""

    def pass_over(self, label: str, error: Exception) -> None:
        """Notes why the one of that label is not used."""

    def report(self, chosen: str) -> BackendReport:
        """Which one was taken, and the notes on all that were not."""


class FallbackBackend(Backend):
    """What "auto" opens: the first backend that opens, until its first inference says otherwise.

    A plan can load and still not run, and memory can run out only then. Each kind of call is trusted once it has
    worked; errors after that are raised as they are, and so are those of unusable input.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._lock = threading.Lock()
        self._trusted: set[str] = set()
        self._gave_way = False
        self._features_type: type | None = None
        self._relieve: Callable[[], None] | None = None
        self._take(*search.next())

    @classmethod
    def open(cls, request: BackendRequest) -> Backend:
        raise NotImplementedError("opened by sam2edge.backends.registry, with a search")

    @property
    def max_points(self) -> int | None:
        return self._current.max_points

    def encode_impl(self, image: FloatArray) -> Any:
        features = self._run("encode", lambda backend: backend.encode(image))
        self._features_type = type(features)
        return features

    def encode_frame_impl(self, frame: NDArray[np.uint8], color_order: str) -> Any:
        def encode(backend: Backend) -> Any:
            if backend.accepts_uint8:
                return backend.encode_frame(frame, color_order)
            return backend.encode(normalised(frame, color_order))  # the one that took frames has just given way

        features = self._run("encode", encode)
        self._features_type = type(features)
        return features

    def decode_impl(
        self, features: Any, point_coords: FloatArray, point_labels: IntArray, mask_input: FloatArray | None
    ) -> DecodedPrompts:
        def decode(backend: Backend) -> DecodedPrompts:
            return backend.decode(self._readable(features), point_coords, point_labels, mask_input)

        return self._run("decode", decode)

    def decode_each_impl(
        self, features: Sequence[Any], point_coords: FloatArray, point_labels: IntArray
    ) -> list[DecodedPrompts]:
        def decode(backend: Backend) -> list[DecodedPrompts]:
            return backend.decode_each([self._readable(one) for one in features], point_coords, point_labels)

        return self._run("decode_each", decode)

    def attend_memory_impl(self, features: Any, recalled: MemoryInputs) -> Any:
        def attend(backend: Backend) -> Any:
            memories = [self._readable(memory) for memory in recalled.memories]
            return backend.attend_memory(self._readable(features), recalled._replace(memories=memories))

        return self._run("attend_memory", attend)

    def encode_memory_impl(self, features: Any, mask: FloatArray, object_score: float, binarise: bool) -> Any:
        def encode(backend: Backend) -> Any:
            return backend.encode_memory(self._readable(features), mask, object_score, binarise)

        return self._run("encode_memory", encode)

    def encode_memories_impl(
        self, features: Any, masks: FloatArray, object_scores: Sequence[float], binarise: Sequence[bool]
    ) -> list[Any]:
        def encode(backend: Backend) -> list[Any]:
            return backend.encode_memories(self._readable(features), masks, object_scores, binarise)

        return self._run("encode_memories", encode)

    def mask_prompt_impl(self, features: Any, mask: FloatArray) -> FloatArray:
        return self._run("mask_prompt", lambda backend: backend.mask_prompt(self._readable(features), mask))

    def set_oom_handler(self, handle_oom: Callable[[], None] | None) -> None:
        self._relieve = handle_oom
        self._current.set_oom_handler(handle_oom)

    def close(self) -> None:
        self._current.close()

    def _readable(self, features: Any) -> Any:
        """The features as the backend in use can read them: by way of the host if another one made them."""
        foreign = self._gave_way and type(features) is not self._features_type
        return features.to_host() if foreign else features

    def _run(self, kind: str, call: Callable[[Backend], T]) -> T:
        while True:
            backend = self._current
            try:
                result = call(backend)
            except InvalidInputError:
                raise
            # Whatever a native library raises; it is raised on when there is nothing to give way to.
            except Exception as error:
                if kind in self._trusted or not self._shrink_cache_under_pressure(backend, error):
                    raise
                continue
            self._trusted.add(kind)
            return result

    def _shrink_cache_under_pressure(self, failed: Backend, error: Exception) -> bool:
        with self._lock:
            if self._current is not failed:  # another thread was here first
                return True
            self._search.pass_over(self._label, error)
            try:
                label, backend = self._search.next()
            except Sam2EdgeError:
                return False
            _log.warning("%s failed in its first inference (%s); using %s", self._label, error, label)
            self._trusted.clear()
            self._gave_way, self._features_type = True, None
            self._take(label, backend)
        # Its device may be in a bad state, and nothing of it is needed any more.
        with suppress(Exception):
            failed.close()
        return True

    def _take(self, label: str, backend: Backend) -> None:
        self._label, self._current = label, backend
        self.name, self.variant = backend.name, backend.variant
        self.image_size, self.precision = backend.image_size, backend.precision
        self.accepts_uint8 = backend.accepts_uint8
        self.report = self._search.report(label)
        backend.set_oom_handler(self._relieve)


def no_backend(model_id: str, errors: list[tuple[str, Exception]], device: str | None) -> BackendUnavailableError:
    """The error that tells every reason."""
    reasons = " | ".join(f"{label}: {error}" for label, error in errors)
    return BackendUnavailableError(f"no backend can run {model_id}", got=reasons or f"device {device!r}")
