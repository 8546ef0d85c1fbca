"""`sam2edge bundle`: sam2edge and models in one file, for machines without a network."""

from __future__ import annotations

import json
from pathlib import Path

import click

import sam2edge
from sam2edge.bundle import install as installer
from sam2edge.cli.group import SuggestingGroup
from sam2edge.cli.model_options import ModelId
from sam2edge.cli.terminal import progress
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.variants import find_variant

_passed_on = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(cls=SuggestingGroup, no_args_is_help=True)
def bundle() -> None:
    """Pack sam2edge and models into one file that installs without a network."""


@bundle.command()
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--model", "model_ids", type=ModelId(), multiple=True, help="An installed model. Repeatable.")
@click.option("--target", "target_name", metavar="NAME", default="linux-aarch64-cp310", show_default=True)
@click.option("--weights/--no-weights", default=True, show_default=True, help="Weights too; they need torch to run.")
@click.option("--engines", is_flag=True, help="Engines too; they are installed only where GPU and TensorRT match.")
@click.option(
    "--wheel",
    "wheels",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Add a wheel, with what it needs. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def create(
    path: Path | None,
    model_ids: tuple[str, ...],
    target_name: str,
    weights: bool,
    engines: bool,
    wheels: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write FILE: sam2edge, everything it needs on the target, and the models named.

    The embedded model is always in it. On the target run: python3 FILE install --venv DIR
    """
    from sam2edge.bundle.create import create_bundle
    from sam2edge.bundle.wheels import read_target

    target = read_target(target_name)
    variants = list(dict.fromkeys(map(find_variant, model_ids)))
    path = path or Path(f"sam2edge-{sam2edge.__version__}-{target.name}.zip")
    with progress("fetching wheels"):
        files = create_bundle(path, target, variants, weights, engines, wheels)
    digest = file_sha256(path)
    if as_json:
        facts = {"path": str(path), "size_bytes": path.stat().st_size, "sha256": digest, "target": target.name}
        click.echo(json.dumps({**facts, "files": [str(file.path.relative_to(paths.root())) for file in files]}))
        return
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB), SHA-256 {digest}")
    click.echo(f"on the target, run: python3 {path.name} install --venv DIR")


@bundle.command("install", context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def install_command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Check a bundle, then install all of it or nothing."""
    context.exit(installer.main(["install", *arguments]))


@bundle.command("verify", context_settings=_passed_on)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def verify_command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Compare every file in a bundle with its checksum."""
    context.exit(installer.main(["verify", *arguments]))
