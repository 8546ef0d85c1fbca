"""One ONNX graph -> one serialised engine, in a process of its own that `sam2edge.engine_build` starts and may lose.

A builder takes hundreds of megabytes that it never gives back, and can crash or be killed: whatever happens here, the
process that asked for the engine goes on. It tells its parent how it goes in JSON lines on standard output.
Works with `tensorrt` 10.3 to 11 and with `tensorrt_rtx`; imports neither torch nor onnx.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sam2edge.engine_build.options import BuildTask
from sam2edge.errors import GraphError, Sam2EdgeError
from sam2edge.machine.device import peak_memory_bytes
from sam2edge.store.paths import write_atomically


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


def build(library: ModuleType, task: BuildTask, events: Events) -> None:
    """Writes the engine of the graph `task.onnx` to `task.engine`. Raises GraphError with the builder's own reason."""
    logger = _make_logger(library, events)
    builder = library.Builder(logger)
    # Since TensorRT 11 every network is strongly typed, and the flag may go.
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(task.onnx)):
        reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise GraphError(f"{library.__name__} cannot parse {task.onnx.name}", got="; ".join(reasons) or "no reason")
    config = builder.create_builder_config()
    config.builder_optimization_level = task.options.level
    config.progress_monitor = monitor = _make_monitor(library, events)
    if task.workspace_bytes:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, task.workspace_bytes)
    timings = _use_timing_cache(config, task.timing_cache)
    engine = builder.build_serialized_network(network, config)
    del monitor
    if engine is None:
        raise GraphError(f"{library.__name__} built no engine of {task.onnx.name}")
    task.engine.write_bytes(memoryview(engine))
    if timings is not None and task.timing_cache is not None:
        try:
            _keep_timing_cache(config, task.timing_cache)
        except OSError as error:  # it saves time in the next build and is no reason to lose this one
            events.send("log", severity="WARNING", text=f"timing cache not kept: {error}")
    events.send(
        "built",
        version=library.__version__,
        inputs=[describe_tensor(library, network.get_input(i)) for i in range(network.num_inputs)],
        outputs=[describe_tensor(library, network.get_output(i)) for i in range(network.num_outputs)],
        device_memory_bytes=_scratch_bytes(library, logger, engine) if task.load_engine else None,
        peak_bytes=peak_memory_bytes(),
    )


class Tensor(NamedTuple):
    """A tensor in the contract's words."""

    name: str
    shape: list[int]
    dtype: str


def describe_tensor(library: ModuleType, tensor: Any) -> Tensor:
    """What the library says of a tensor with a name, a shape and a dtype."""
    names = ("float32", "float16", "int32", "int64", "uint8")
    dtypes = {getattr(library, name): name for name in names if hasattr(library, name)}
    return Tensor(tensor.name, list(tensor.shape), dtypes.get(tensor.dtype, str(tensor.dtype)))


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


def run_task(arguments: Sequence[str] | None, do: Callable[[ModuleType, BuildTask, Events], None]) -> int:
    """Reads the task of a worker's command line, does it, and reports how it ended; returns the exit status."""
    task = BuildTask.from_json((arguments or sys.argv[1:])[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted too, ends this process
    events = Events(os.dup(1))
    os.dup2(2, 1)  # what a native library prints must not come between the events
    try:
        do(importlib.import_module(task.library), task, events)
    # Builders, torch2trt and torch.onnx raise errors of many classes; each is reported.
    except Exception as error:
        reason = str(error) if isinstance(error, (Sam2EdgeError, OSError)) else f"{type(error).__name__}: {error}"
        events.send("failed", reason=" ".join(reason.split()))
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_task(arguments, build)


if __name__ == "__main__":
    sys.exit(main())
