"""Writes docs/cli.md from the commands' own help: python docs/make_cli_page.py"""

from __future__ import annotations

from pathlib import Path

import click

from sam2edge.cli.main import cli

PAGE = Path(__file__).parent / "cli.md"
_WIDTH = 100
_HEAD = """\
# Command line

Generated from the commands' own help by `python docs/make_cli_page.py`.

- Exit status: 0 success, 1 an error, 2 bad usage, 130 interrupted, 128 + N stopped by signal N.
- Errors are one line on standard error: what is wrong, what was expected, what came, what to do. With `--json` the
  error is a JSON object on standard output too.
- Nothing is written over without `--force`: a new file gets a number, and a note says so.
- `eval "$(sam2edge completion bash)"` in `~/.bashrc` completes commands, options, model ids, backends and files.
"""


def make_page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections(cli, None, "sam2edge")])


def _sections(command: click.Command, parent: click.Context | None, name: str) -> list[str]:
    settings = {"terminal_width": _WIDTH, "max_content_width": _WIDTH, **command.context_settings}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    found = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
            found += _sections(subcommand, context, child)
    return found


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
