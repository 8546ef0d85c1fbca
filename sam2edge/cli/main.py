"""The `sam2edge` command: finds the subcommand and turns every error into one line and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from sam2edge import __version__
from sam2edge.cli.group import SuggestingGroup
from sam2edge.cli.terminal import Reported, Stopped, printable, stop_by_signal
from sam2edge.errors import EXIT_INTERRUPTED, Sam2EdgeError

DEBUG_VARIABLE = "SAM2EDGE_DEBUG"
EXIT_FAILURE, EXIT_USAGE = 1, 2

_COMMANDS = {
    "segment": ("sam2edge.cli.segment:segment", "Cut objects out of photos: clicks or boxes in, masks out."),
    "track": ("sam2edge.cli.track:track", "Follow objects through a video or a camera's picture."),
    "serve": ("sam2edge.cli.serve:serve", "Follow what you click on, on a page in the browser."),
    "build": ("sam2edge.cli.build:build", "Build TensorRT engines of a model for this machine."),
    "doctor": ("sam2edge.cli.doctor:doctor", "Show this machine, what works on it, and which model fits."),
    "models": ("sam2edge.cli.models:models", "List, install, add, remove and check models."),
    "bench": ("sam2edge.cli.bench:bench", "Measure the models that are installed on this machine."),
    "bundle": ("sam2edge.cli.bundle:bundle", "Pack everything into one file for machines without a network."),
    "completion": ("sam2edge.cli.completion:completion", "Print the completion script of your shell."),
}


class _LazyGroup(SuggestingGroup):
    """Imports a command when it is called, so that `--help` and bad usage answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
def cli() -> None:
    """SAM 2 on small devices: masks of objects in photos and videos, without a network."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; `arguments` are those after the program's name, by default the process's own.

    Returns the exit status: 0 on success, 2 for bad usage, 130 when interrupted, 128 and its number when stopped by a
    signal, 1 otherwise. Failures print one line on standard error and, with --json, a JSON object on standard output;
    with SAM2EDGE_DEBUG=1 in the environment the traceback comes first.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # its errors become one line of sam2edge's
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    as_json = "--json" in given
    try:
        with stop_by_signal():
            status = cli.main(args=given, prog_name="sam2edge", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (SystemExit, BrokenPipeError):  # the reader of the output has closed it
        _drop_output()
        return EXIT_FAILURE
    except Reported as reported:
        return _fail(reported.error, False)
    except BaseException as error:
        return _fail(error, as_json)


def _explain(error: BaseException) -> tuple[str, int]:
    """One line and the exit status."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "sam2edge"
        return f"{error.format_message()} See `{command} --help`.", EXIT_USAGE
    if isinstance(error, click.Abort):  # click makes it of a KeyboardInterrupt
        error = error.__cause__ or error
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.number).name}", 128 + error.number
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, Sam2EdgeError):
        return str(error), EXIT_FAILURE
    if isinstance(error, MemoryError):
        return "out of memory; remedy: a smaller photo or model", EXIT_FAILURE
    if isinstance(error, OSError):
        place = "standard output" if error.filename is None else error.filename
        problem = f"a file or the output cannot be used; got {error.strerror or error} ({place})"
        return f"{problem}; remedy: check that it is there, its permissions, and the room on its disk", EXIT_FAILURE
    return (
        f"unexpected {type(error).__name__}: {error}; remedy: run again with {DEBUG_VARIABLE}=1 and report what it "
        "prints",
        EXIT_FAILURE,
    )


def _fail(error: BaseException, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    message, status = _explain(error)
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0") and status == EXIT_FAILURE:
        traceback.print_exception(error)
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        click.echo(f"sam2edge: {printable(message)}", err=True)
    try:
        if as_json:
            click.echo(json.dumps({"error": message, "status": status, **_parts(error)}))
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _drop_output()
    return status


def _parts(error: BaseException) -> dict[str, str | None]:
    if not isinstance(error, Sam2EdgeError):
        return {}
    parts = {"problem": error.problem, "expected": error.expected, "got": error.got, "remedy": error.remedy}
    return {name: None if value is None else str(value) for name, value in parts.items()}


def _drop_output() -> None:
    """Discards what standard output still holds, or the interpreter prints an error when it exits."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
