"""`sam2edge completion`: prints the script with which a shell completes commands, options, model ids and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_SAM2EDGE_COMPLETE"


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash, add this line to ~/.bashrc: eval "$(sam2edge completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "sam2edge", _VARIABLE).source())
