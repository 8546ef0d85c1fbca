"""Builds a model's engines: the exporter's scripts, each in a process of its own, which may be lost or interrupted."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from sam2edge.errors import BackendUnavailableError, GraphError, InvalidInputError
from sam2edge.store import paths
from sam2edge.variants import Variant

EXIT_INTERRUPTED = 130
_PATIENCE_S = 1.0
_LAST_PATIENCE_S = 20.0

Run = Callable[[list[str]], int]
"""(script and its arguments) -> exit status."""


def build_engines(
    variant: Variant,
    image_size: int,
    precision: str,
    checkpoint: str | Path | None,
    run: Run,
    *,
    compiler: str = "tensorrt",
    level: int = 3,
    skip_built: bool = False,
) -> int:
    """Exports the model's graphs where the store has none, or where `checkpoint` is given, and builds their engines.

    Returns the exit status of the script that failed, which has told why, or 0. Raises Sam2EdgeError for what is
    known before anything is started.
    """
    common = [variant.name, "--size", str(image_size), "--precision", precision]
    weights = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    if compiler == "torch2trt" and importlib.util.find_spec("torch2trt") is None:  # before the export takes minutes
        raise BackendUnavailableError(
            "torch2trt is not installed", remedy="pip install git+https://github.com/NVIDIA-AI-IOT/torch2trt"
        )
    if checkpoint is not None or paths.find_graphs(variant, image_size, precision) is None:
        _check_can_export(variant, image_size, precision)
        status = run(["to_onnx", *common, *weights])
        if status != 0:
            return status
    options = ["--compiler", compiler, "--level", str(level), *(["--skip-built"] if skip_built else []), *weights]
    return run(["to_engine", *common, *options])


def build_missing(variant: Variant, image_size: int, precision: str, checkpoint: str | Path | None) -> None:
    """Builds the engines that are missing or not right; precision "auto" is fp16. Progress goes to standard error.

    Raises GraphError with what the failed script told, KeyboardInterrupt when interrupted.
    """
    said: list[str] = []

    def run(script: list[str]) -> int:
        return run_script(script, said.append)

    chosen = "fp16" if precision == "auto" else precision
    status = build_engines(variant, image_size, chosen, checkpoint, run, skip_built=True)
    if status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        # A script that was killed has not told why.
        told = [line.removeprefix("sam2edge: ") for line in said if line.startswith("sam2edge: ")]
        reason = told[-1] if told else f"exit status {status}{f' after {said[-1]!r}' if said else ''}"
        raise GraphError(f"engines of {variant.model_id} were not built", got=reason)


def run_script(script: list[str], tell: Callable[[str], object] | None = None) -> int:
    """Runs one of the exporter's scripts to its end and returns its exit status.

    With `tell`, its lines on standard error are handed over as they come and shown as well, and what it prints is
    dropped. When interrupted, the script is given time to clear away what it has begun; then KeyboardInterrupt.
    """
    command = [sys.executable, "-m", "sam2edge.export", *script]
    if tell is None:
        with subprocess.Popen(command, text=True) as process:
            return _ended(process, process.wait)
    piped = subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=piped, text=True, errors="replace") as process:
        return _ended(process, partial(_listen, process, tell))


def _listen(process: subprocess.Popen[str], tell: Callable[[str], object]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if sys.stderr is not None:
            sys.stderr.write(line)
        if line.strip():
            tell(line.strip())
    return process.wait()


def _ended(process: subprocess.Popen[str], wait: Callable[[], int]) -> int:
    try:
        return wait()
    except KeyboardInterrupt:
        # From a terminal the script has had it too; from elsewhere it has not.
        for patience, send in ((_PATIENCE_S, signal.SIGINT), (_LAST_PATIENCE_S, signal.SIGKILL)):
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(patience)
                break
            process.send_signal(send)
        raise


def _check_can_export(variant: Variant, image_size: int, precision: str) -> None:
    if image_size < 64 or image_size % 32:
        raise InvalidInputError("image size cannot be used", expected="a multiple of 32, at least 64", got=image_size)
    missing = [name for name in ("torch", "onnx", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailableError(
            f"no {precision} graphs of {variant.model_id} at image size {image_size}, and they cannot be exported here",
            expected="torch, onnx and safetensors",
            got=f"no {', '.join(missing)}",
            remedy="pip install 'sam2edge[export]', or copy graphs into "
            f"{paths.graph_dir(variant, image_size, precision)}",
        )
