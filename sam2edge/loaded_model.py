"""A loaded model: its backend and what comes after it, its caches, what it has done."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sam2edge.backends.base import Backend
from sam2edge.backends.registry import BackendSearch
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from sam2edge.datatypes import BackendReport, Features
from sam2edge.errors import OutOfMemoryError, Sam2EdgeError
from sam2edge.imaging.frame import image_to_input
from sam2edge.observe.stats import CallTimes, ModelStats, read_machine_metrics
from sam2edge.selection.budget import MemoryWatch
from sam2edge.variants import Variant

_log = logging.getLogger("sam2edge")

T = TypeVar("T")
M = TypeVar("M", bound="LoadedModel")


class LoadedModel:
    """A model on an open backend. Safe to call from several threads."""

    def __init__(
        self,
        backend: Backend,
        report: BackendReport,
        embeddings_cache: Sam2ImageEmbeddingsInMemoryCache | None = None,
        masks_cache: Sam2LowResolutionMasksInMemoryCache | None = None,
        memory_watch: MemoryWatch | None = None,
        search: BackendSearch | None = None,
    ) -> None:
        """A model on an open backend.

        Args:
            backend: runs the model.
            report: how it was found.
            embeddings_cache, masks_cache: where results are kept; None: nowhere.
            memory_watch: tells how much memory the machine lacks, so that the cache shrinks in time.
            search: where the next backend comes from when this one runs out of memory; None: there is none.
        """
        self.backend = backend
        self.report = report
        """Which backend is in use, and why every better one is not."""
        self.embeddings_cache = embeddings_cache
        self.masks_cache = masks_cache
        self._memory_watch = memory_watch
        self._search = search
        self._fallback_lock = threading.Lock()
        self._num_skipped_at_load = len(report.skipped)
        self._calls: dict[str, CallTimes] = defaultdict(CallTimes)
        self._calls_lock = threading.Lock()
        backend.set_oom_handler(self.clear_cache)
        self._tag = f"{backend.variant.name}/{backend.image_size}/{backend.precision}/{backend.name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.variant.model_id} at {self.image_size} on {self.backend_name})"

    def __enter__(self: M) -> M:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def variant(self) -> Variant:
        """The model that was loaded."""
        return self.backend.variant

    @property
    def image_size(self) -> int:
        """Side of the square model input in pixels."""
        return self.backend.image_size

    @property
    def backend_name(self) -> str:
        """Name of the backend in use."""
        return self.backend.name

    @property
    def low_res_hw(self) -> tuple[int, int]:
        """Height and width of the logits that predictions return and `mask_input` takes."""
        return (self.image_size // 4, self.image_size // 4)

    def encode(
        self, pixels: NDArray[np.uint8], color_order: str, resize: str = "bilinear", wait: bool = True
    ) -> Features:
        """The features of one frame, not cached.

        `pixels` (H, W, 3) uint8 with their order, "bgr" or "rgb", as `frame_to_uint8` gives them: nothing is checked
        again. `resize` as for `image_to_input`, `wait` as for `Backend.encode`; without it only the start is counted
        as the time of an embed.
        """
        started = time.perf_counter()
        if self._memory_watch is not None:
            self._shrink_cache_under_pressure(self._memory_watch)
        backend = self.backend
        features: Features
        if resize == "bilinear" and pixels.shape[:2] in backend.frame_sizes:
            features = backend.encode_frame(pixels, color_order, wait)
        else:
            features = backend.encode(image_to_input(pixels, color_order, backend.image_size, resize), wait)
        self.count_call("embed", started)
        return features

    def retry_on_next_backend(self, call: Callable[..., T], *arguments: Any) -> T:
        """What `call` returns; where the device runs out of memory in it, another try on the next backend.

        Only a model that chose its backend itself ("auto") has a next one: the candidates after the present one, each
        tried before it is taken. A warning and `report` say so, and the model stays there until it is loaded again.
        Embeddings and memories made before stay usable. `call` must change nothing when it fails.
        """
        while True:
            backend = self.backend
            try:
                return call(*arguments)
            except OutOfMemoryError as error:
                self._change_backend(backend, error)
            except Exception:
                if self.backend is backend:
                    raise  # else another thread has taken the next one meanwhile, and closed this one

    def count_call(self, kind: str, started: float) -> None:
        """Counts a call of a kind that began at `started`, a time of `time.perf_counter`, for `stats`."""
        seconds = time.perf_counter() - started
        with self._calls_lock:
            times = self._calls[kind]
            times.count += 1
            times.total_seconds += seconds
            times.latest.append(seconds)

    def stats(self) -> ModelStats:
        """What this model has done since it was loaded, and how the machine fares; takes a few milliseconds.

        `stats().to_prometheus()` is the same in Prometheus' text format.
        """
        caches = {"embeddings": self.embeddings_cache, "masks": self.masks_cache}
        watch = self._memory_watch
        with self._calls_lock:
            calls = {kind: times.copy() for kind, times in self._calls.items()}
        return ModelStats(
            model=self.variant.model_id,
            backend=self.backend_name,
            image_size=self.image_size,
            precision=self.backend.precision,
            calls={kind: times.summarise() for kind, times in calls.items()},
            caches={name: cache.statistics for name, cache in caches.items() if cache is not None},
            fallbacks=self.report.skipped[self._num_skipped_at_load :],
            **read_machine_metrics(watch.gpu if watch is not None else None),
        )

    def close(self) -> None:
        """Gives the model's memory and its caches back; the model is not used afterwards."""
        if self.embeddings_cache is not None:
            self.embeddings_cache.clear()
        if self.masks_cache is not None:
            self.masks_cache.clear()
        self.backend.close()

    def clear_cache(self) -> None:
        """Empties the embeddings cache, for a device that has run out of memory."""
        if self.embeddings_cache is not None:
            self.embeddings_cache.clear()

    def _change_backend(self, failed: Backend, failure: OutOfMemoryError) -> None:
        """Takes the next backend in place of the failed one, once for all threads; raises `failure` without one."""
        with self._fallback_lock:
            if self.backend is not failed:  # another thread was here first
                return
            if self._search is None:
                raise failure
            try:
                backend = self._search.open_next(failure)
            except Sam2EdgeError:
                raise failure from None
            self.report = self._search.report
            _log.warning("%s has no memory left (%s); using %s from here on", failed.name, failure, self.report.chosen)
            backend.set_oom_handler(self.clear_cache)
            self.backend = backend
        failed.close()

    def _shrink_cache_under_pressure(self, watch: MemoryWatch) -> None:
        """Lets the cache make up for what the machine has come to lack, before more memory is taken."""
        missing = watch.shortfall_bytes() if self.embeddings_cache else 0
        if missing and self.embeddings_cache is not None:
            self.embeddings_cache.release(missing)
