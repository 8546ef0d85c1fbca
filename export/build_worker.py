"""One ONNX graph -> one serialised engine, in a process of its own that `to_engine` starts and may lose.

A builder takes hundreds of megabytes that it never gives back, and can crash or be killed: whatever happens here, the
process that asked for the engine goes on. It tells its parent how it goes in JSON lines on standard output.
Works with `tensorrt` 10.3 and later and with `tensorrt_rtx`; imports neither torch nor onnx.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sam2edge.errors import GraphError, Sam2EdgeError

NO_TIMING_CACHE = {"tensorrt_rtx"}
"""Libraries that time nothing while they build: their timing-cache calls do nothing and say so in a warning."""


class Events:
    """JSON lines to the parent. Once nobody reads them any more, there is nothing left to build for."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, kind: str, **facts: Any) -> None:
        try:
            with self._lock:
                self._file.write(json.dumps({"event": kind, **facts}) + "\n")
                self._file.flush()
        except OSError:
            os._exit(1)


def build(library: ModuleType, args: argparse.Namespace, events: Events) -> None:
    """Writes the engine of `chosen.graph` to `chosen.engine`. Raises GraphError with the builder's own reason."""
    logger = _make_logger(library, events)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(args.graph)):
        reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise GraphError(f"{library.__name__} cannot parse {args.graph.name}", got="; ".join(reasons) or "no reason")
    config = builder.create_builder_config()
    config.builder_optimization_level = args.level
    config.progress_monitor = monitor = _make_monitor(library, events)
    if args.workspace:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, args.workspace)
    timings = _use_timing_cache(config, args.timing_cache)
    engine = builder.build_serialized_network(network, config)
    del monitor
    if engine is None:
        raise GraphError(f"{library.__name__} built no engine of {args.graph.name}")
    args.engine.write_bytes(memoryview(engine))
    if timings is not None:
        try:
            _keep_timing_cache(config, args.timing_cache)
        except OSError as error:  # it saves time in the next build and is no reason to lose this one
            events.send("log", severity="WARNING", text=f"timing cache not kept: {error}")
    events.send(
        "built",
        version=library.__version__,
        inputs=[described(library, network.get_input(i)) for i in range(network.num_inputs)],
        outputs=[described(library, network.get_output(i)) for i in range(network.num_outputs)],
        device_memory_bytes=_scratch_bytes(library, logger, engine) if args.try_loading else None,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


class Described(NamedTuple):
    """A tensor in the contract's words."""

    name: str
    shape: list[int]
    dtype: str


def described(library: ModuleType, tensor: Any) -> Described:
    """What the library says of a tensor with a name, a shape and a dtype."""
    dtypes = {library.float32: "float32", library.float16: "float16", library.int32: "int32", library.int64: "int64"}
    return Described(tensor.name, list(tensor.shape), dtypes.get(tensor.dtype, str(tensor.dtype)))


def _scratch_bytes(library: ModuleType, logger: Any, engine: Any) -> int:
    """Device memory that running the engine takes; loading it once also shows that this GPU takes it."""
    loaded = library.Runtime(logger).deserialize_cuda_engine(engine)
    if loaded is None:
        raise GraphError(f"{library.__name__} cannot load the engine that it built")
    return int(loaded.device_memory_size_v2)


def _use_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    # A cache of another version or GPU is refused; an empty one starts afresh.
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _keep_timing_cache(config: Any, path: Path) -> None:
    from sam2edge.store.paths import write_atomically

    content = memoryview(config.get_timing_cache().serialize())
    write_atomically(path, lambda part: _write(part, content))


def _write(path: Path, content: memoryview) -> None:
    path.write_bytes(content)


def _make_logger(library: ModuleType, events: Events) -> Any:
    class Log(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR, library.ILogger.WARNING):
                events.send("log", severity=severity.name, text=message)

    return Log()


def _make_monitor(library: ModuleType, events: Events) -> Any:
    class Monitor(library.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            events.send("phase", name=phase_name, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            events.send("step", name=phase_name, step=step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            events.send("phase_end", name=phase_name)

    return Monitor()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build one engine; started by sam2edge.export.to_engine.")
    parser.add_argument("graph", type=Path)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--library", required=True)
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--workspace", type=int, default=0, help="bytes; 0 is the builder's own limit")
    parser.add_argument("--timing-cache", type=Path)
    parser.add_argument("--try-loading", action="store_true")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted too, ends this process
    events = Events(os.dup(1))
    os.dup2(2, 1)  # what a native library prints must not come between the events
    try:
        build(importlib.import_module(args.library), args, events)
    except (Sam2EdgeError, ImportError, OSError, MemoryError, RuntimeError) as error:
        events.send("failed", reason=str(error) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
