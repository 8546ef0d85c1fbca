"""The measured side of a benchmark: a process that does one named case a request and times it itself.

    python -m bench.worker MODULE:FUNCTION JSON [--once]

calls the function with the JSON object's entries as arguments. It gives the cases by name; with --once it does its
work, and its result is the answer. Standard library alone, so that it runs in any environment that a peer needs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

MARK = "@bench "
"""Starts every line that is meant for the harness; whatever else a library prints is passed over."""
LIBRARIES = ("sam2edge", "numpy", "cv2", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "pycuda", "sam2")


class Timed(NamedTuple):
    """What a case returns that has timed itself, as by a GPU's own events."""

    ms: float
    result: Any = None


def time_on_cpu(work: Callable[[], int]) -> Timed:
    """CPU time of all threads, for long work on a machine that others share; with the wall clock's, and the count that
    `work` returns."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = work()
    cpu_ms = (time.process_time() - cpu) * 1e3
    return Timed(cpu_ms, {"masks": count, "wall_ms": round((time.perf_counter() - wall) * 1e3, 1)})


def main(arguments: list[str]) -> None:
    location, given, *once = arguments
    module, _, name = location.partition(":")
    made = getattr(importlib.import_module(module), name)(**json.loads(given))
    if once:
        _answer({"result": made, **_facts()})
    else:
        _serve(made)


def _serve(cases: Mapping[str, Callable[[], Any]]) -> None:
    """Answers one request a line on standard input: a case's name, or nothing (end of input) to finish.

    Each answer is {"ms": milliseconds the case took, "result": what it returned}; the last one tells the process's
    peak memory and the versions of what it imported.
    """
    _answer({"ready": True})
    for line in sys.stdin:
        case = cases[line.strip()]
        start = time.perf_counter()
        result = case()
        elapsed_ms = (time.perf_counter() - start) * 1e3
        if isinstance(result, Timed):
            elapsed_ms, result = result
        _answer({"ms": elapsed_ms, "result": result})
    _answer(_facts())


def _facts() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        if name in sys.modules:
            with suppress(importlib.metadata.PackageNotFoundError):  # pycuda and sam2 tell it by their metadata alone
                versions[name] = getattr(sys.modules[name], "__version__", None) or importlib.metadata.version(name)
    # ru_maxrss is in KiB on Linux.
    return {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "versions": versions}


def _answer(content: Mapping[str, Any]) -> None:
    print(MARK + json.dumps(content), flush=True)


if __name__ == "__main__":
    from bench import worker  # so that `Timed` is the class that cases import

    worker.main(sys.argv[1:])
