"""`sam2edge models install`: makes a model run on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from sam2edge.cli.hints import note
from sam2edge.cli.model_options import ModelId
from sam2edge.cli.terminal import byte_progress
from sam2edge.store import paths
from sam2edge.variants import find_variant


@click.command()
@click.argument("model", type=ModelId(), metavar="MODEL")
@click.option("--size", type=int, metavar="S", help="Side of the model's input in pixels. Default: the model's own.")
@click.option("--again", is_flag=True, help="Export the graphs again even if they are there.")
@click.option("--dry-run", is_flag=True, help="Show the steps and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def install(model: str, size: int | None, again: bool, dry_run: bool, as_json: bool) -> None:
    """Make MODEL run on this machine: download its weights, export its graphs, build engines where there is a GPU.

    Needs no torch: where it is missing, it is fetched into a temporary folder for the export and removed afterwards.
    """
    from sam2edge.model_install import install_model, plan_install

    variant = find_variant(model)
    plan = plan_install(variant, size, again)
    for number, step in enumerate(plan.steps(), 1):
        note(f"step {number}: {step}")
    if not dry_run:
        with byte_progress(variant.checkpoint.file_name if variant.checkpoint else model) as report:
            install_model(plan, report)
    if as_json:
        facts: dict[str, Any] = {"model": variant.model_id, "image_size": plan.image_size, "steps": plan.steps()}
        graphs = paths.find_graphs(variant, plan.image_size, "fp32")
        click.echo(json.dumps({**facts, "done": not dry_run, "graphs": None if graphs is None else str(graphs)}))
    elif dry_run:
        click.echo(f"{variant.model_id}: {len(plan.steps())} steps to do")
    else:
        click.echo(f"{variant.model_id} is installed. Next: sam2edge segment PHOTO --point X,Y --model {model}")
