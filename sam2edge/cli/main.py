"""The `sam2edge` command: finds the subcommand, and turns every failure into one line and an exit status."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from sam2edge import __version__
from sam2edge.cli.group import SuggestingGroup
from sam2edge.errors import Sam2EdgeError

DEBUG_VARIABLE = "SAM2EDGE_DEBUG"
EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_COMMANDS = {
    "segment": ("sam2edge.cli.segment:segment", "Cut objects out of photos: clicks or boxes in, masks out."),
    "track": ("sam2edge.cli.track:track", "Follow objects through a video or a camera's picture."),
    "build": ("sam2edge.cli.build:build", "Build TensorRT engines of a model for this machine."),
    "doctor": ("sam2edge.cli.doctor:doctor", "Show this machine, what works on it, and which model fits."),
    "models": ("sam2edge.cli.models:models", "List, install, add, remove and check models."),
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

    Returns the exit status: 0 on success, 2 for bad usage, 130 when interrupted, 1 otherwise. Failures print one line
    on standard error; with SAM2EDGE_DEBUG=1 in the environment the traceback comes before it.
    """
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments), prog_name="sam2edge", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "sam2edge"
        return _fail(f"{error.format_message()} See `{command} --help`.", EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):  # click makes an Abort of the former
        return _fail("interrupted", EXIT_INTERRUPTED)
    except Sam2EdgeError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; remedy: a smaller photo or model")
    except Exception as error:
        _drop_output()
        return _fail(
            f"unexpected {type(error).__name__}: {error}; remedy: run again with {DEBUG_VARIABLE}=1 and report "
            "what it prints"
        )


def _fail(message: str, status: int = EXIT_FAILURE) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0") and status == EXIT_FAILURE:
        traceback.print_exc()
    one_line = " ".join(message.split())
    printable = one_line.encode(errors="backslashreplace").decode()  # a file's name need not be text
    click.echo(f"sam2edge: {printable}", err=True)
    return status


def _drop_output() -> None:
    """Let what standard output still holds go nowhere, or the interpreter complains about it when it exits."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
