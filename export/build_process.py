"""Starts the process that builds one engine, listens to it, and says what it died of."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam2edge.errors import BackendUnavailableError, GraphError, OutOfMemoryError, Sam2EdgeError
from sam2edge.export.build_worker import NO_TIMING_CACHE
from sam2edge.export.onnx_facts import GraphFacts
from sam2edge.export.progress import BuildProgress
from sam2edge.machine.device import Gpu, available_memory_bytes
from sam2edge.store import paths

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""What can build, the first one installed being taken."""

_MIB = 1 << 20
# What a builder takes before it looks at a graph: kernels, and on the GPU for timing them (nanosam issue 40).
_BUILDER_BYTES = {"tensorrt": 930 * _MIB, "tensorrt_rtx": 250 * _MIB}
_BUILDER_GPU_BYTES = 750 * _MIB
_BYTES_PER_GRAPH_BYTE = 4

# Log lines that say "no memory" in a builder's words ("could not find any implementation": tactics were skipped).
_MEMORY_SIGNS = ("out of memory", "outofmemory", "could not find any implementation", "insufficient memory")


@dataclass(frozen=True)
class BuildOptions:
    """How to build. `level` 0..5 trades build time for speed; `skip_built` keeps engines that are still right.

    `compiler` "torch2trt" converts the torch module with the weights of `checkpoint` instead of parsing the graph.
    """

    library: str
    level: int = 3
    skip_built: bool = False
    gpu: Gpu | None = None
    compiler: str = "tensorrt"
    checkpoint: Path | None = None


@dataclass
class BuildRun:
    """What one build process told."""

    facts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    log: list[str] = field(default_factory=list)


def find_library() -> str:
    """The installed TensorRT library. Raises BackendUnavailableError naming what to install."""
    found = next((name for name in LIBRARIES if importlib.util.find_spec(name) is not None), None)
    if found is None:
        raise BackendUnavailableError(
            "no TensorRT is installed",
            expected=" or ".join(LIBRARIES),
            got="neither",
            remedy="sudo apt install python3-libnvinfer (Jetson), pip install tensorrt, or pip install 'sam2edge[rtx]'",
        )
    return found


def check_torch2trt(library: str) -> None:
    """Raises BackendUnavailableError unless torch2trt can be used, with the command that installs it."""
    if importlib.util.find_spec("torch2trt") is None:
        raise BackendUnavailableError(
            "torch2trt is not installed", remedy="pip install git+https://github.com/NVIDIA-AI-IOT/torch2trt"
        )
    if library != "tensorrt":
        raise BackendUnavailableError("torch2trt needs TensorRT itself", expected="tensorrt", got=library)


def library_version(library: str) -> str | None:
    """The library's own version, asked in a process of its own: importing it takes 100 MB."""
    program = f"import {library}; print({library}.__version__)"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return asked.stdout.strip() or None


def check_free_memory(graph: Path, options: BuildOptions) -> None:
    """Raises OutOfMemoryError before a build that the memory available now cannot hold."""
    needed = _BUILDER_BYTES[options.library] + _BYTES_PER_GRAPH_BYTE * graph.stat().st_size
    if options.gpu is not None and options.gpu.integrated:
        needed += _BUILDER_GPU_BYTES
    available = available_memory_bytes()
    if available is not None and available < needed:
        raise OutOfMemoryError(
            f"not enough memory to build {graph.stem}",
            expected=f"{needed // _MIB} MiB available",
            got=f"{available // _MIB} MiB",
            remedy="stop other programs (a desktop takes 1 GiB), add swap for the build, or use a smaller model",
        )


def run_builder(facts: GraphFacts, part: Path, options: BuildOptions, progress: BuildProgress) -> BuildRun:
    """Runs the build process to its end. Raises what it died of, with the builder's own last words."""
    graph = facts.path
    command = _torch2trt_command if options.compiler == "torch2trt" else _tensorrt_command
    before = available_memory_bytes()
    run = BuildRun()
    with (
        tempfile.TemporaryFile("w+") as words,  # a pipe that nobody reads could fill up and stop the builder
        subprocess.Popen(command(facts, part, options), stdout=subprocess.PIPE, stderr=words, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                _take_event(line, run, progress)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        words.seek(0)
        last_words = words.read().splitlines()[-1:]
    if status != 0 or not run.facts:
        raise _failure(graph, run, status, " ".join(last_words), before)
    return run


def _tensorrt_command(facts: GraphFacts, part: Path, options: BuildOptions) -> list[str]:
    command = [sys.executable, "-m", "sam2edge.export.build_worker", str(facts.path), str(part)]
    command += ["--library", options.library, "--level", str(options.level)]
    if options.library not in NO_TIMING_CACHE:
        command += ["--timing-cache", str(paths.root() / "timing" / f"{_timing_name(options)}.cache")]
    if options.gpu is not None:
        command += ["--try-loading", "--workspace", str(_workspace_bytes(options.gpu))]
    return command


def _torch2trt_command(facts: GraphFacts, part: Path, options: BuildOptions) -> list[str]:
    command = [sys.executable, "-m", "sam2edge.export.torch2trt_worker", str(facts.path), str(part)]
    command += ["--library", options.library, "--model", facts.model, "--checkpoint", str(options.checkpoint)]
    return [
        *command,
        "--size",
        str(facts.image_size),
        "--slots",
        str(facts.prompt_slots),
        *("--precision", facts.precision),
    ]


def _take_event(line: str, run: BuildRun, progress: BuildProgress) -> None:
    try:
        event = json.loads(line)
    except ValueError:  # cut short, as the last line of a killed process is
        return
    kind = event.pop("event")
    if kind == "built":
        run.facts = event
    elif kind == "failed":
        run.reason = event["reason"]
    elif kind == "log":
        run.log.append(f"[{event['severity']}] {event['text']}")
    else:
        progress.update(kind, **event)


def _failure(graph: Path, run: BuildRun, status: int, last_words: str, available: int | None) -> Sam2EdgeError:
    """What a build died of, in the words of the system, the builder and its log."""
    problem = f"engine of {graph.stem} was not built"
    memory = "unknown" if available is None else f"{available // _MIB} MiB"
    if status < 0:
        reason = f"its process was ended by {signal.Signals(-status).name}"
    else:
        reason = run.reason or last_words or f"exit status {status}"
    log = [line for line in run.log if "ERROR" in line][-3:] or run.log[-1:]
    got = f"{reason}; builder: {' | '.join(log)}" if log else reason
    if status == -signal.SIGKILL or any(sign in got.lower() for sign in _MEMORY_SIGNS):
        remedy = f"likely memory ran out: {memory} were available at its start; free some"
        return OutOfMemoryError(problem, got=got, remedy=remedy)
    return GraphError(problem, got=got)


def _workspace_bytes(gpu: Gpu) -> int:
    """Half of what the device can give; on a shared memory that is what is available, not what there is."""
    available = available_memory_bytes() if gpu.integrated else None
    return min(gpu.total_bytes, available or gpu.total_bytes) // 2


def _timing_name(options: BuildOptions) -> str:
    gpu = options.gpu.name if options.gpu else "no-gpu"
    return f"{options.library}-{library_version(options.library)}-{gpu}".replace(" ", "_").replace("/", "_")
