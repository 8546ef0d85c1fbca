"""Runs the processes of a build: one builds an engine and reports in JSON lines, scripts export and compare."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sam2edge.engine_build.options import BuildTask
from sam2edge.engine_build.progress import Progress
from sam2edge.errors import GraphError, OutOfMemoryError, Sam2EdgeError, name_status
from sam2edge.machine.device import available_memory_bytes

_MIB = 1 << 20
_WORKERS = {"tensorrt": "build_worker", "torch2trt": "torch2trt_worker"}

# Log lines that say "no memory" in a builder's words ("could not find any implementation": tactics were skipped).
_MEMORY_SIGNS = ("out of memory", "outofmemory", "could not find any implementation", "insufficient memory")

# How long an interrupted process is waited for, before an interrupt of our own, and before it is killed.
_PATIENCE_S, _LAST_PATIENCE_S = 1.0, 20.0


@dataclass
class _Report:
    """What one build process reported."""

    facts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    log: list[str] = field(default_factory=list)


def run_worker(task: BuildTask, progress: Progress) -> dict[str, Any]:
    """Builds one engine in a process of its own; returns the facts that the process reported of it.

    Raises OutOfMemoryError or GraphError with the cause and the builder's own last words. An interrupt kills the
    process.
    """
    command = _command(_WORKERS[task.options.compiler], [task.to_json()])
    before = available_memory_bytes()
    report = _Report()
    with (
        tempfile.TemporaryFile("w+") as words,  # a pipe that nobody reads could fill up and stop the builder
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                _take_event(line, report, progress)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        words.seek(0)
        last_words = words.read().splitlines()[-1:]
    if status != 0 or not report.facts:
        raise _failure(task.graph, report, status, " ".join(last_words), before)
    return report.facts


EXIT_OUT_OF_MEMORY = 3
"""Exit status of a script that had not enough memory."""


class ScriptError(GraphError):
    """A script that failed. `killed_by` names the signal that ended it, None where it ended by itself."""

    killed_by: str | None = None
    out_of_memory: bool = False


def run_script(script: list[str], show: Callable[[str], object], keep_output: bool = False) -> None:
    """Runs a script of `sam2edge.export` to its end. Lines on its standard error go to `show` as they come.

    What it prints is dropped, or with `keep_output` goes to our own standard output. Raises ScriptError with the error
    that it reported. When interrupted, it is given time to clear away what it began; then KeyboardInterrupt.
    """
    output = None if keep_output else subprocess.DEVNULL
    told: str | None = None
    last = ""
    with subprocess.Popen(
        _command(script[0], script[1:]), stdout=output, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        try:
            for line in map(str.strip, process.stderr):
                if line.startswith("sam2edge: "):
                    told = line.removeprefix("sam2edge: ")
                elif line:
                    last = line
                    show(line)
            status = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    if status == 0:
        return
    cause = name_status(status)
    error = ScriptError(
        told or f"{script[0]} failed", got=None if told else f"{cause}{f' after {last!r}' * bool(last)}"
    )
    error.killed_by = cause if status < 0 else None
    error.out_of_memory = status == EXIT_OUT_OF_MEMORY
    raise error


def _command(module: str, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "sam2edge.export", module, *arguments]


def _end(process: subprocess.Popen[str]) -> None:
    # From a terminal the script has had the interrupt too; from elsewhere it has not.
    for patience, send in ((_PATIENCE_S, signal.SIGINT), (_LAST_PATIENCE_S, signal.SIGKILL)):
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience)
            return
        process.send_signal(send)


def _take_event(line: str, report: _Report, progress: Progress) -> None:
    try:
        event = json.loads(line)
    except ValueError:  # cut short, as the last line of a killed process is
        return
    kind = event.pop("event")
    if kind == "built":
        report.facts = event
    elif kind == "failed":
        report.reason = event["reason"]
    elif kind == "log":
        report.log.append(f"[{event['severity']}] {event['text']}")
    else:
        progress.update(kind, **event)


def _failure(graph: str, report: _Report, status: int, last_words: str, available: int | None) -> Sam2EdgeError:
    """Why a build failed, in the words of the system, the builder and its log."""
    problem = f"engine of {graph} was not built"
    memory = "unknown" if available is None else f"{available // _MIB} MiB"
    if status < 0:
        reason = f"its process was ended by {name_status(status)}"
    else:
        reason = report.reason or last_words or name_status(status)
    log = [line for line in report.log if "ERROR" in line][-3:] or report.log[-1:]
    got = f"{reason}; builder: {' | '.join(log)}" if log else reason
    if status == -signal.SIGKILL or any(sign in got.lower() for sign in _MEMORY_SIGNS):
        remedy = f"likely memory ran out: {memory} were available at its start; free some"
        return OutOfMemoryError(problem, got=got, remedy=remedy)
    return GraphError(problem, got=got)
