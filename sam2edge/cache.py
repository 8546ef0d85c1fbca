"""The one cache of the runtime, bounded by entries and by bytes, and its two uses: embeddings and mask logits.

Nothing here knows a device. A cached value owns its memory. Evicting an entry drops the cache's reference and nothing
else: a value that someone still holds stays valid, and is freed with its last reference.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sam2edge.errors import InvalidInputError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Prompt = frozenset[Hashable]
"""What was clicked: ("point", x, y, label) and ("box", x1, y1, x2, y2) tuples, in pixels of the photo."""


@dataclass(frozen=True)
class CacheStatistics:
    """Counts since the cache was made, and what it holds now (`num_entries`, `num_bytes`)."""

    hits: int
    misses: int
    evictions: int
    num_entries: int
    num_bytes: int


class BoundedCache(Generic[K, V]):
    """A thread-safe mapping that evicts the least recently used entries to stay within its limits.

    Args:
        size_limit: most entries to hold, an int >= 0; None is no limit.
        max_bytes: most bytes to hold, an int >= 0; None is no limit. A value's size is its `nbytes` when it is added.

    Raises:
        InvalidInputError: a limit that is not None or an int >= 0.
    """

    def __init__(self, size_limit: int | None = None, max_bytes: int | None = None) -> None:
        self.size_limit = _check_limit("size_limit", size_limit)
        self.max_bytes = _check_limit("max_bytes", max_bytes)
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()  # least recently used first; (value, bytes)
        self._computing: dict[K, _Computation[V]] = {}
        self._num_bytes = 0
        self._hits = self._misses = self._evictions = 0

    def get(self, key: K) -> V | None:
        """The value kept under `key`, now the most recently used, or None."""
        with self._lock:
            return self._get(key)

    def put(self, key: K, value: V) -> bool:
        """Keeps `value` under `key`, in place of what was there, and evicts the least recently used to make room.

        Returns False when the value alone exceeds the limits; it is then not kept, and neither is its predecessor.
        """
        value, num_bytes = self._prepare(value)
        # `dropped` outlives the lock on purpose: freeing an embedding may run device code, which must not hold it.
        with self._lock:
            dropped = self._pop(key)
            fits = self.size_limit != 0 and (self.max_bytes is None or num_bytes <= self.max_bytes)
            if fits:
                self._entries[key] = (value, num_bytes)
                self._num_bytes += num_bytes
                dropped += self._evict(self.size_limit, self.max_bytes)
        del dropped
        return fits

    def get_or_compute(self, key: K, make: Callable[[], V]) -> V:
        """The value kept under `key`, or else `make()`, which is then kept if it fits.

        Threads that ask for the same key at the same time compute it once: the others wait for the first. When the
        first fails, its error is raised there alone, and a waiting thread calls its own `make`. Other keys do not
        wait. A `make` that asks for its own key gets it computed, not a deadlock.
        """
        while True:
            with self._lock:
                kept = self._get(key)
                if kept is not None:
                    return kept
                computation = self._computing.get(key)
                first = computation is None
                if computation is None:
                    computation = self._computing[key] = _Computation(threading.get_ident())
            if first:
                return self._compute(key, computation, make)
            if computation.thread_id == threading.get_ident():
                return make()
            computation.done.wait()
            if computation.results:
                return computation.results[0]

    def remove(self, key: K) -> bool:
        """Removes one entry; True if it was there."""
        with self._lock:
            dropped = self._pop(key)
        return bool(dropped)

    def clear(self) -> None:
        """Removes every entry. The counts of `statistics` go on."""
        with self._lock:
            dropped, self._entries = self._entries, OrderedDict()
            self._num_bytes = 0
        del dropped

    def shrink_to(self, max_bytes: int) -> int:
        """Evicts the least recently used, once, until at most `max_bytes` are held; returns the bytes evicted.

        The limits stay as they are. A value that someone else still holds keeps its memory until they drop it.
        """
        max_bytes = _check_bytes("max_bytes", max_bytes)
        with self._lock:
            dropped = self._evict(None, max_bytes)
        return sum(num_bytes for _, num_bytes in dropped)

    def release(self, num_bytes: int) -> int:
        """Evicts the least recently used until `num_bytes` are gone or the cache is empty; returns those bytes."""
        num_bytes = _check_bytes("num_bytes", num_bytes)
        with self._lock:
            dropped = self._evict(None, max(0, self._num_bytes - num_bytes))
        return sum(size for _, size in dropped)

    @property
    def statistics(self) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(self._hits, self._misses, self._evictions, len(self._entries), self._num_bytes)

    def list_keys(self) -> list[K]:
        """The keys at this moment, the least recently used first."""
        with self._lock:
            return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Whether the key is kept; neither a use of the entry nor a hit."""
        return key in self._entries

    def _prepare(self, value: V) -> tuple[V, int]:
        """What is kept of `value`, and its bytes."""
        return value, int(value.nbytes)  # type: ignore[attr-defined]  # by duck type: arrays and embeddings have it

    def _compute(self, key: K, computation: _Computation[V], make: Callable[[], V]) -> V:
        try:
            value = make()
            self.put(key, value)
            computation.results.append(value)
            return value
        finally:
            with self._lock:
                del self._computing[key]
            computation.done.set()

    # The rest is called with the lock held.

    def _get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def _pop(self, key: K) -> list[tuple[V, int]]:
        entry = self._entries.pop(key, None)
        if entry is None:
            return []
        self._num_bytes -= entry[1]
        return [entry]

    def _evict(self, max_entries: int | None, max_bytes: int | None) -> list[tuple[V, int]]:
        dropped: list[tuple[V, int]] = []
        while self._entries and (
            (max_entries is not None and len(self._entries) > max_entries)
            or (max_bytes is not None and self._num_bytes > max_bytes)
        ):
            dropped += self._pop(next(iter(self._entries)))
        self._evictions += len(dropped)
        return dropped


class Sam2ImageEmbeddingsInMemoryCache(BoundedCache[Hashable, Any]):
    """Embeddings of images by key; make it with `init`, pass it to `AutoModel.from_pretrained`, share it if you like.

    A value has `nbytes` (an int) and `to_host()`, a copy of it in host memory. The key is the model's: it covers
    pixels, shape, dtype, colour order, model, resolution and precision, so models may share one cache.
    """

    send_to_cpu = False

    @classmethod
    def init(
        cls, size_limit: int | None = 100, send_to_cpu: bool = True, max_bytes: int | None = None
    ) -> Sam2ImageEmbeddingsInMemoryCache:
        """A new, empty cache.

        Args:
            size_limit: most images to hold; None is no limit.
            send_to_cpu: keep a copy in host memory in place of the device's buffers. It saves memory of a separate
                GPU at the price of an upload per hit; a Jetson has one memory for both, so it saves nothing there.
            max_bytes: most bytes to hold; None is no limit. An embedding of a 1024x1024 input is 20 MiB in
                float32.

        Raises:
            InvalidInputError: a limit that is not None or an int >= 0.
        """
        cache = cls(size_limit, max_bytes)
        cache.send_to_cpu = bool(send_to_cpu)
        return cache

    def retrieve_embeddings(self, key: Hashable) -> Any:
        """The embedding whose `image_hash` is `key`, or None; `get`, as `inference-models` calls it."""
        return self.get(key)

    def save_embeddings(self, key: Hashable, embeddings: Any) -> None:
        """Keeps an embedding under its `image_hash`; `put`, as `inference-models` calls it."""
        self.put(key, embeddings)

    def _prepare(self, value: Any) -> tuple[Any, int]:
        return super()._prepare(value.to_host() if self.send_to_cpu else value)


class Sam2LowResolutionMasksInMemoryCache(BoundedCache[tuple[Hashable, Prompt], np.ndarray]):
    """Mask logits by image and prompt, several prompts per image; refinement starts from them.

    A key is (image_key, prompt), a value float32 logits (C, h, w) or (K, C, h, w) at the decoder's resolution
    (256x256 for a 1024 input). A read-only copy is kept, in host memory. Each entry counts for
    itself against the limits.
    """

    @classmethod
    def init(
        cls, size_limit: int | None = 100, send_to_cpu: bool = True, max_bytes: int | None = None
    ) -> Sam2LowResolutionMasksInMemoryCache:
        """A new, empty cache.

        Args:
            size_limit: most sets of logits to hold, over all images; None is no limit.
            send_to_cpu: accepted for symmetry; logits are numpy arrays and in host memory either way.
            max_bytes: most bytes to hold; None is no limit. Three 256x256 masks are 768 KiB.

        Raises:
            InvalidInputError: a limit that is not None or an int >= 0.
        """
        return cls(size_limit, max_bytes)

    def latest_for(self, image_key: Hashable, prompt: Prompt) -> np.ndarray | None:
        """The logits to refine when `prompt` is asked of an image, read-only, or None.

        Of the image's entries whose prompt is part of `prompt`, or equal to it, the one with the largest; of those
        equally large, the one saved or used last.
        """
        with self._lock:
            best: tuple[Hashable, Prompt] | None = None
            # Every entry is looked at: at nearly a megabyte each they stay few, and an index would be one more
            # thing that can outlive them.
            for key in reversed(self._entries):
                if key[0] == image_key and key[1] <= prompt and (best is None or len(key[1]) > len(best[1])):
                    best = key
            if best is None:
                self._misses += 1
                return None
            return self._get(best)

    def _prepare(self, value: np.ndarray) -> tuple[np.ndarray, int]:
        logits = np.array(value, dtype=np.float32)
        if logits.ndim not in (3, 4):
            raise InvalidInputError(
                "mask logits of the wrong shape",
                expected="(C, h, w) or (K, C, h, w)",
                got=str(logits.shape),
                remedy="keep the logits as the prediction gives them",
            )
        logits.setflags(write=False)
        return super()._prepare(logits)


class _Computation(Generic[V]):
    """A value that is being computed: its thread, an event for when it is done, the value."""

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        self.done = threading.Event()
        self.results: list[V] = []


def _check_limit(name: str, limit: int | None) -> int | None:
    return None if limit is None else _check_bytes(name, limit, "an int >= 0, or None for no limit")


def _check_bytes(name: str, value: int, expected: str = "an int >= 0") -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise InvalidInputError(
            f"{name} of the cache is not usable",
            expected=expected,
            got=repr(value),
            remedy=f"give {name} as a whole number",
        )
    return number
