"""A group of commands that suggests the closest name for a mistyped one."""

from __future__ import annotations

import difflib

import click


class SuggestingGroup(click.Group):
    """As click's group, in every version of click that sam2edge takes."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.resilient_parsing or args[0].startswith("-") or self.get_command(ctx, args[0]) is not None:
            return super().resolve_command(ctx, args)
        names = self.list_commands(ctx)
        close = difflib.get_close_matches(args[0], names, n=1)
        advice = f"Did you mean {close[0]!r}?" if close else f"Commands are {', '.join(names)}."
        ctx.fail(f"No such command {args[0]!r}. {advice}")
