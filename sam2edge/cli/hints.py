"""Notes on standard error each time, hints only once."""

from __future__ import annotations

import contextlib

import click

from sam2edge.store import paths


def note(text: str, quiet: bool = False) -> None:
    """One line on standard error."""
    if not quiet:
        click.echo(f"note: {text}", err=True)


def hint_once(name: str, text: str) -> None:
    """One line on standard error, the first time on this machine; each time if that cannot be saved."""
    told = paths.root() / ".hints" / name
    if told.exists():
        return
    click.echo(f"hint: {text}", err=True)
    with contextlib.suppress(OSError):
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch()
