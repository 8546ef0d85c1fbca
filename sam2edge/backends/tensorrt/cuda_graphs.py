"""Recorded launches of an engine, replayed in one call of CUDA's driver: less to do on the CPU, a shorter tail.

Off unless SAM2EDGE_CUDA_GRAPHS=1 is in the environment: what it brings was not measured yet. pycuda has no calls for
it, so the driver is asked by ctypes. A recording holds addresses, and is replayed only where all of them are the same
again: prompts on one embedding, buffers that come back at the place that they had.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

VARIABLE = "SAM2EDGE_CUDA_GRAPHS"
KEPT = 16
"""Recordings that an engine keeps, the least recently used going first: memories take turns in a ring of buffers."""

_DRIVER = "libcuda.so.1"
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_log = logging.getLogger("sam2edge")


def wanted() -> bool:
    return os.environ.get(VARIABLE, "0") not in ("", "0")


class CudaGraphCache:
    """The recordings of one engine. Whatever fails in making one turns them off, with its reason in the log."""

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._graphs: OrderedDict[Hashable, ctypes.c_void_p] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._cuda: Any = None
        try:
            self._cuda = load(_DRIVER)
        except OSError as error:
            self._turn_off(str(error))

    def run(self, addresses: Hashable, stream_handle: int, launch: Callable[[], bool]) -> bool:
        """Does what `launch` does, by a recording of it where there is one; whether it went well.

        Recorded is what comes a second time: TensorRT wants a plain launch before.
        """
        stream = ctypes.c_void_p(stream_handle)
        if self._cuda is None:
            return launch()
        if addresses not in self._graphs:
            seen = addresses in self._seen
            self._seen[addresses] = None
            if len(self._seen) > 2 * KEPT:
                self._seen.popitem(last=False)
            if not seen or not self._record(addresses, stream, launch):
                return launch()
        self._graphs.move_to_end(addresses)
        return int(self._cuda.cuGraphLaunch(self._graphs[addresses], stream)) == 0

    def close(self) -> None:
        while self._graphs:
            self._cuda.cuGraphExecDestroy(self._graphs.popitem(last=False)[1])

    def _record(self, addresses: Hashable, stream: ctypes.c_void_p, launch: Callable[[], bool]) -> bool:
        cuda, graph, runnable = self._cuda, ctypes.c_void_p(), ctypes.c_void_p()
        if cuda.cuStreamBeginCapture_v2(stream, _THREAD_LOCAL):
            return self._turn_off("the stream cannot be recorded")
        launched = launch()
        status = cuda.cuStreamEndCapture(stream, ctypes.byref(graph))  # also after a failure: it frees the stream
        if status or not launched:
            return self._turn_off(f"a launch cannot be recorded (CUDA error {status})")
        status = cuda.cuGraphInstantiateWithFlags(ctypes.byref(runnable), graph, ctypes.c_ulonglong(0))
        cuda.cuGraphDestroy(graph)
        if status:
            return self._turn_off(f"a recording cannot be replayed (CUDA error {status})")
        self._graphs[addresses] = runnable
        if len(self._graphs) > KEPT:
            cuda.cuGraphExecDestroy(self._graphs.popitem(last=False)[1])
        return True

    def _turn_off(self, reason: str) -> bool:
        _log.warning("CUDA graphs are not used: %s", reason)
        if self._cuda is not None:
            self.close()
        self._cuda = None
        return False
