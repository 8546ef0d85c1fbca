"""The measured side of a benchmark: a process that does one named case a request and times it itself.

Standard library alone, so that it runs in any environment that a peer needs.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

MARK = "@bench "
"""Starts every line that is meant for the harness; whatever else a library prints is passed over."""


class Timed(NamedTuple):
    """What a case returns that has timed itself, as by a GPU's own events."""

    ms: float
    result: Any = None


def serve(cases: Mapping[str, Callable[[], Any]], distributions: Sequence[str], **facts: Any) -> None:
    """Answers one request a line on standard input: a case's name, or nothing (end of input) to finish.

    Each answer is {"ms": milliseconds the case took, "result": what it returned}; the last one tells the process's
    peak memory, versions and which of torch and onnxruntime it imported.
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
    _answer({**facts, **_facts(distributions)})


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, in MiB (ru_maxrss is in KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _facts(distributions: Sequence[str]) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in distributions:
        versions[name] = importlib.metadata.version(name)
    return {
        "peak_rss_mib": peak_rss_mib(),
        "versions": versions,
        "imported": sorted({"torch", "onnxruntime", "cv2"} & set(sys.modules)),
    }


def _answer(content: Mapping[str, Any]) -> None:
    print(MARK + json.dumps(content), flush=True)
