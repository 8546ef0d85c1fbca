"""What a loaded model has done, and the state of its machine: counts, latencies, caches, memory, heat."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2edge.cache import CacheStatistics
from sam2edge.machine.device import read_host_memory
from sam2edge.machine.gpu_state import GpuMonitor
from sam2edge.machine.sysfs import read_fields_kb
from sam2edge.machine.thermal import read_heat
from sam2edge.observe.prometheus import Metric, format_exposition

WINDOW = 1000
"""Calls of each kind whose times are kept: median and p99 are those of the latest."""


@dataclass(frozen=True)
class Latency:
    """Times of one kind of call: how many and seconds in all since loading; median and p99 of the latest `WINDOW`."""

    count: int
    total_seconds: float
    median_ms: float
    p99_ms: float


@dataclass
class CallTimes:
    """Times of one kind of call, in bounded memory; who adds to them and copies them does so under a lock."""

    count: int = 0
    total_seconds: float = 0.0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def copy(self) -> CallTimes:
        return CallTimes(self.count, self.total_seconds, self.latest.copy())

    def summarise(self) -> Latency:
        times = sorted(self.latest)
        return Latency(
            self.count, self.total_seconds, 1e3 * _find_quantile(times, 0.5), 1e3 * _find_quantile(times, 0.99)
        )


@dataclass(frozen=True)
class ModelStats:
    """A model since it was loaded, and its machine now. Bytes, degrees Celsius; None where it is not known.

    `calls` by kind: "frame" (an image passed in, cache hits too), "embed" (one encoded), "segment" (an image's
    prompts), "track" (a tracked frame). `fallbacks` are the backends given up after loading, each with its reason.
    `caches` by name: "embeddings", "masks". `memory_available_bytes` is the host's, which a Jetson's GPU shares;
    `gpu_used_bytes` is what all processes hold on the GPU, `gpu_free_bytes` and `gpu_total_bytes` are a discrete one's.
    """

    model: str
    backend: str
    image_size: int
    precision: str
    calls: Mapping[str, Latency]
    caches: Mapping[str, CacheStatistics]
    fallbacks: tuple[tuple[str, str], ...] = ()
    process_resident_bytes: int | None = None
    memory_available_bytes: int | None = None
    gpu_used_bytes: int | None = None
    gpu_free_bytes: int | None = None
    gpu_total_bytes: int | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    slowed_by: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Images passed in since loading, those of videos and cache hits included."""
        return self.calls["frame"].count if "frame" in self.calls else 0

    def to_json(self) -> dict[str, Any]:
        return {"frames": self.frames, **asdict(self)}

    def to_prometheus(self) -> str:
        """The figures in Prometheus' text format (version 0.0.4), ending in a newline."""
        return format_exposition(_list_metrics(self))


def read_machine_metrics(monitor: GpuMonitor | None, root: Path = Path("/")) -> dict[str, Any]:
    """The part of `ModelStats` about the machine; `monitor` watches a discrete GPU in use."""
    heat = read_heat(root)
    memory = read_host_memory(root)
    state = monitor.read() if monitor is not None else None
    gpu_used = memory.gpu_bytes
    if state is not None and state.free_bytes is not None and state.total_bytes is not None:
        gpu_used = state.total_bytes - state.free_bytes
    temperatures = dict(heat.zones_c)
    if state is not None and state.temperature_c is not None:
        temperatures["gpu"] = state.temperature_c
    return {
        "process_resident_bytes": read_fields_kb(root / "proc/self/status").get("VmRSS"),
        "memory_available_bytes": memory.available_bytes,
        "gpu_used_bytes": gpu_used,
        "gpu_free_bytes": state.free_bytes if state else None,
        "gpu_total_bytes": state.total_bytes if state else None,
        "temperatures_c": temperatures,
        "slowed_by": heat.slowed_by + (state.slowed_by if state else ()),
    }


def _find_quantile(ordered: list[float], share: float) -> float:
    """The least value that at least `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _list_metrics(stats: ModelStats) -> Iterator[Metric]:
    about = {"model": stats.model, "backend": stats.backend}
    calls, caches = stats.calls.items(), stats.caches.items()
    details = {**about, "image_size": str(stats.image_size), "precision": stats.precision}
    yield Metric("info", "gauge", "The loaded model; always 1.", [("", details, 1)])
    yield Metric("frames_total", "counter", "Images passed in, cache hits included.", [("", about, stats.frames)])
    times = []
    for kind, latency in calls:
        labels = {**about, "call": kind}
        times.append(("", {**labels, "quantile": "0.5"}, latency.median_ms / 1e3))
        times.append(("", {**labels, "quantile": "0.99"}, latency.p99_ms / 1e3))
        times.append(("_sum", labels, latency.total_seconds))
        times.append(("_count", labels, latency.count))
    yield Metric("call_seconds", "summary", "Time of a call; quantiles of the latest thousand.", times)
    for name, kind, text, values in (
        ("cache_hits_total", "counter", "Look-ups that found an entry.", {n: c.hits for n, c in caches}),
        ("cache_misses_total", "counter", "Look-ups that found none.", {n: c.misses for n, c in caches}),
        ("cache_evictions_total", "counter", "Entries evicted to make room.", {n: c.evictions for n, c in caches}),
        ("cache_entries", "gauge", "Entries held.", {n: c.num_entries for n, c in caches}),
        ("cache_bytes", "gauge", "Bytes held.", {n: c.num_bytes for n, c in caches}),
    ):
        yield Metric(name, kind, text, [("", {**about, "cache": n}, value) for n, value in values.items()])
    fallbacks = len(stats.fallbacks)
    yield Metric("fallbacks_total", "counter", "Backends given up after loading.", [("", about, fallbacks)])
    for name, text, value in (
        ("process_resident_bytes", "Resident memory of the process.", stats.process_resident_bytes),
        ("memory_available_bytes", "Memory of the machine or container that is left.", stats.memory_available_bytes),
        ("gpu_used_bytes", "Memory that all processes hold on the GPU.", stats.gpu_used_bytes),
        ("gpu_free_bytes", "Free memory of the discrete GPU in use.", stats.gpu_free_bytes),
        ("gpu_total_bytes", "Memory of the discrete GPU in use.", stats.gpu_total_bytes),
    ):
        yield Metric(name, "gauge", text, [] if value is None else [("", {}, value)])
    zones = [("", {"zone": zone}, value) for zone, value in stats.temperatures_c.items()]
    yield Metric("temperature_celsius", "gauge", "Temperature by thermal zone.", zones)
    yield Metric("throttled", "gauge", "1 while clocks are held down.", [("", {}, int(bool(stats.slowed_by)))])
