"""What a model counts, and the text that Prometheus reads."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from sam2edge import VideoTracker
from sam2edge.cache import Sam2ImageEmbeddingsInMemoryCache, Sam2LowResolutionMasksInMemoryCache
from sam2edge.datatypes import BackendReport
from sam2edge.errors import InvalidInputError
from sam2edge.machine.gpu_state import GpuMonitor, GpuState
from sam2edge.observe.prometheus import Metric, format_exposition
from sam2edge.observe.stats import CallTimes, ModelStats, read_machine_metrics
from sam2edge.predictor import ImagePredictor
from sam2edge.selection.budget import MemoryWatch
from tests.fake_backend import FakeBackend, bright_square, fake_model
from tests.trees import GIB, ORIN_NANO_8GB, ORIN_NX_16GB, write_tree

BOX = np.array([5, 5, 40, 40])


def test_what_a_model_has_done() -> None:
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=1)
    masks = Sam2LowResolutionMasksInMemoryCache.init()
    model = ImagePredictor(FakeBackend(), BackendReport("fake"), cache, masks)
    first, second = bright_square(5), bright_square(20)
    model.embed_images([first, first, second])
    model.segment_images(second, boxes=BOX)
    with pytest.raises(InvalidInputError):
        model.segment_images("no picture", boxes=BOX)
    stats = model.stats()
    assert {kind: latency.count for kind, latency in stats.calls.items()} == {"frame": 4, "embed": 2, "segment": 1}
    assert stats.frames == 4
    embeddings = stats.caches["embeddings"]
    assert (embeddings.hits, embeddings.misses, embeddings.evictions, embeddings.num_entries) == (2, 2, 1, 1)
    assert embeddings.num_bytes > 0 and stats.caches["masks"].hits == 0
    assert stats.process_resident_bytes and stats.memory_available_bytes
    assert (stats.model, stats.backend, stats.fallbacks) == ("sam2/micro", "fake", ())
    json.dumps(stats.to_json())


def test_a_tracked_frame_counts() -> None:
    tracker = VideoTracker(fake_model())
    tracker.prompt(bright_square(5), box=BOX)
    tracker.track(bright_square(7))
    calls = tracker.stats().calls
    assert calls["track"].count == 1 and calls["frame"].count == 2
    assert calls["track"].total_seconds >= calls["embed"].total_seconds / 2


def test_backends_given_up_after_loading() -> None:
    backend = FakeBackend()
    before = (("tensorrt on cuda", "no engine"),)
    model = ImagePredictor(backend, BackendReport("torch on cuda", before))
    assert model.stats().fallbacks == ()
    model.report = BackendReport("onnxruntime on cpu", (*before, ("torch on cuda", "out of memory")))
    assert model.stats().fallbacks == (("torch on cuda", "out of memory"),)
    assert "sam2edge_fallbacks_total" in model.stats().to_prometheus()


def test_the_cache_gives_way_when_memory_runs_short() -> None:
    available = [100 * GIB]
    now = [0.0]
    watch = MemoryWatch(lambda: available[0], reserve=GIB, clock=lambda: now[0])
    cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=None)
    model = ImagePredictor(FakeBackend(), BackendReport("fake"), cache, memory_watch=watch)
    for left in range(0, 30, 10):
        now[0] += 2
        model.embed_images(bright_square(left))
    one = cache.statistics.num_bytes // 3
    assert len(cache) == 3
    now[0], available[0] = now[0] + 2, GIB - one - 1  # what two embeddings hold is missing
    model.embed_images(bright_square(40))
    assert len(cache) == 2 and cache.statistics.evictions == 2


def test_median_and_p99_of_the_latest_calls() -> None:
    milliseconds = [5000, *range(1, 101)]
    times = CallTimes(len(milliseconds), sum(milliseconds) / 1000, deque((m / 1000 for m in milliseconds), maxlen=100))
    found = times.summarise()
    assert (found.count, found.median_ms, found.p99_ms) == (101, pytest.approx(50), pytest.approx(99))
    assert found.total_seconds == pytest.approx(5 + 5.05)


def test_calls_from_many_threads() -> None:
    model = fake_model()
    started = time.perf_counter()
    threads = [Thread(target=lambda: [model.count_call("embed", started) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.stats().calls["embed"].count == 4000


def test_the_machines_part(tmp_path: Path) -> None:
    class Monitor(GpuMonitor):
        def __init__(self) -> None:
            pass

        def read(self) -> GpuState:
            return GpuState(8 * GIB, 2 * GIB, 66.0, 1500, ("power cap",), "NVML")

    figures = read_machine_metrics(Monitor(), write_tree(tmp_path, ORIN_NX_16GB))
    assert figures["memory_available_bytes"] == 12 * GIB
    assert figures["temperatures_c"] == {"cpu-thermal": 61.0, "gpu": 66.0}
    assert figures["gpu_used_bytes"] == 6 * GIB
    assert read_machine_metrics(None, write_tree(tmp_path / "nano", ORIN_NANO_8GB))["gpu_used_bytes"] == 151_552 * 1024
    assert figures["slowed_by"] == ("devfreq-17000000.gpu", "power cap")
    text = ModelStats("m", "b", 64, "fp32", {}, {}, **figures).to_prometheus()
    assert "\nsam2edge_throttled 1\n" in text
    assert f"\nsam2edge_gpu_free_bytes {2 * GIB}\n" in text
    assert '\nsam2edge_temperature_celsius{zone="cpu-thermal"} 61.0\n' in text


# As the format has it: a HELP and a TYPE line, then that metric's samples and no other's.
_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)')


def _parsed(text: str) -> dict[str, tuple[str, list[tuple[str, str, float]]]]:
    assert text.endswith("\n")
    found: dict[str, tuple[str, list[tuple[str, str, float]]]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in found and len(line.split(" ", 3)) == 4
        elif line.startswith("# TYPE "):
            _, _, same, kind = line.split(" ")
            assert same == name and kind in ("counter", "gauge", "summary")
            found[name] = (kind, [])
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1].removesuffix("_sum").removesuffix("_count") == name or sample[1] == name
            found[name][1].append((sample[1], sample[2] or "", float(sample[3])))
    return found


def test_the_text_for_prometheus() -> None:
    model = fake_model()
    model.embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init()
    model.segment_images(bright_square(5), boxes=BOX)
    metrics = _parsed(model.stats().to_prometheus())
    about = 'model="sam2/micro",backend="fake"'
    assert metrics["sam2edge_frames_total"] == ("counter", [("sam2edge_frames_total", about, 1.0)])
    kind, samples = metrics["sam2edge_call_seconds"]
    assert kind == "summary"
    assert ("sam2edge_call_seconds_count", f'{about},call="embed"', 1.0) in samples
    assert {labels.rpartition("quantile=")[2] for name, labels, _ in samples if "quantile" in labels} == {
        '"0.5"',
        '"0.99"',
    }
    assert metrics["sam2edge_cache_misses_total"][1][0][1:] == (f'{about},cache="embeddings"', 1.0)
    assert all(name.endswith("_total") == (kind == "counter") for name, (kind, _) in metrics.items())


def test_labels_and_texts_are_escaped_and_empty_metrics_left_out() -> None:
    odd = 'a\\b"c\nd'
    text = format_exposition(
        [Metric("x", "gauge", "one\ntwo\\", [("", {"zone": odd}, 1.5)]), Metric("y", "gauge", "", [])]
    )
    assert text == (
        "# HELP sam2edge_x one\\ntwo\\\\\n# TYPE sam2edge_x gauge\n" + r'sam2edge_x{zone="a\\b\"c\nd"} 1.5' + "\n"
    )
    assert len(_parsed(text)) == 1
