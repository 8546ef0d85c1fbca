"""TensorRT-RTX compiles an engine's kernels on the device that runs it: they are kept on disk for the next process."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from sam2edge.store import paths
from sam2edge.store.manifest import Manifest

_log = logging.getLogger("sam2edge")


def has_runtime_cache(library: ModuleType) -> bool:
    return hasattr(library, "IRuntimeCache")


class RuntimeCache:
    """The compiled kernels of one engine: read before its execution context is made, written after its first run."""

    def __init__(self, library: ModuleType, manifest: Manifest) -> None:
        # Kernels are those of one engine, one library and one GPU; the library itself refuses what does not fit.
        name = f"{manifest.graph}-{manifest.sha256[:16]}-{library.__version__}.cache"
        self._path = paths.root() / "runtime_cache" / name
        self._cache: Any = None
        self._known = b""

    def use(self, config: Any) -> None:
        """Gives the cache to the runtime configuration of an execution context that is made next."""
        self._cache = config.create_runtime_cache()
        try:
            self._known = self._path.read_bytes()
        except OSError:
            self._known = b""
        if self._known and not self._cache.deserialize(self._known):
            self._known = b""
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Writes what was compiled, where that is more than was read. A disk that refuses it costs time, no more."""
        content = bytes(memoryview(self._cache.serialize()))
        if content == self._known:
            return
        try:
            paths.write_bytes(self._path, content)
        except OSError as error:
            _log.info("compiled kernels were not kept: %s", error)
