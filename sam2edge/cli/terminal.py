"""Progress on the terminal, silence of native libraries, and stopping by signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PATIENCE_SECONDS = 1.0


class Stopped(KeyboardInterrupt):
    """The process was asked to end, as `docker stop`, systemd and a closed terminal do; handled as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Reported(Exception):
    """The error of a command that has printed its JSON report; one line and the exit status are still missing."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


@contextmanager
def stop_by_signal() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Stopped, once; a signal that is ignored (nohup) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # a second one must not cut off the end of a file
        raise Stopped(number)

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def printable(text: object) -> str:
    """`text` in one line without control characters: a file's name may have some."""
    one_line = " ".join(str(text).split()).encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in one_line)


@contextmanager
def progress(message: str) -> Iterator[None]:
    """Show `message` with a spinner while the block runs, from its second second on, on a terminal only."""
    if sys.stderr is None or not sys.stderr.isatty():  # None: started with it closed
        yield
        return
    done = threading.Event()
    spinner = threading.Thread(target=_spin, args=(message, done), daemon=True)
    spinner.start()
    try:
        yield
    finally:
        done.set()
        spinner.join()


def _spin(message: str, done: threading.Event) -> None:
    if done.wait(PATIENCE_SECONDS):
        return
    from rich.console import Console  # takes 0.1 s, which a quick command saves

    with Console(stderr=True).status(message):
        done.wait()


@contextmanager
def frame_progress(total: int | None) -> Iterator[Callable[[], None]]:
    """A bar with frames a second while the block runs, on a terminal only; the function given counts a frame."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.monotonic()
    speed = TextColumn("{task.fields[speed]:.1f} frames/s")
    columns = (BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, speed=0.0)

        def advance() -> None:
            done = bar.tasks[0].completed + 1
            bar.update(task, advance=1, speed=done / max(time.monotonic() - started, 1e-6))

        yield advance


@contextmanager
def byte_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes while the block runs, on a terminal only; the function given takes those done and the total."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hide what C libraries print on standard error (libpng, libjpeg: "Corrupt JPEG data").

    For the command line only: it redirects file descriptor 2 of the whole process while the block runs.
    """
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def tell_skipped_engine(model: Any) -> None:
    """One line on standard error where an engine was built for the model and could not be used, with the reason."""
    from sam2edge.store.paths import find_engines

    reasons = [reason for label, reason in getattr(model.report, "skipped", ()) if label.startswith("tensorrt")]
    if reasons and find_engines(model.variant, model.image_size) is not None:
        click.echo(f"note: the built engine was not used: {' '.join(reasons[0].split())}", err=True)


def tell_new_name(wanted: Path, written: Path) -> None:
    """One line on standard error if a result got another name so as not to overwrite a file."""
    if written != wanted:
        click.echo(
            f"note: {printable(wanted)} is there already: written as {printable(written.name)}; --force overwrites it",
            err=True,
        )
