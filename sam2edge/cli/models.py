"""`sam2edge models`: what there is, and where to get it."""

from __future__ import annotations

import json
from typing import Any

import click

from sam2edge.store import is_installed
from sam2edge.variants import ALIASES, VARIANTS, Variant

LICENCE = "Apache-2.0"  # of every checkpoint listed, the embedded one among them


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """The models that sam2edge knows; without a command, `list`."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_models(as_json: bool = False) -> None:
    """List the models: id, release, input side in pixels, whether it is installed, where its weights are."""
    rows = [_described(variant) for variant in VARIANTS.values()]
    if as_json:
        click.echo(json.dumps({"models": rows}))
        return
    header = ("MODEL", "RELEASE", "INPUT", "INSTALLED", "CHECKPOINT")
    table = [header] + [
        (
            row["id"],
            row["release"],
            str(row["image_size"]),
            "yes" if row["installed"] else "no",
            row["checkpoint_url"] or "embedded",
        )
        for row in rows
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _described(variant: Variant) -> dict[str, Any]:
    checkpoint = variant.checkpoint
    return {
        "id": variant.model_id,
        "aliases": sorted(
            alias for alias, name in ALIASES.items() if name == variant.name and alias != variant.model_id
        ),
        "release": variant.release,
        "size": variant.size,
        "image_size": variant.image_size,
        "installed": is_installed(variant),
        "checkpoint_url": checkpoint.url if checkpoint else None,
        "checkpoint_sha256": checkpoint.sha256 if checkpoint else None,
        "licence": LICENCE,
    }
