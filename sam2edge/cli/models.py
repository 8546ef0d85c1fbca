"""`sam2edge models`: which models there are, which are on this machine, and how to add and remove them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from sam2edge.cli.group import SuggestingGroup
from sam2edge.cli.hints import note
from sam2edge.cli.install import install
from sam2edge.cli.model_options import ModelId
from sam2edge.cli.terminal import byte_progress, progress
from sam2edge.errors import InvalidInputError
from sam2edge.selection.cpu_time import find_cpu_ms
from sam2edge.selection.memory_estimate import PARAMETERS
from sam2edge.store import paths
from sam2edge.store.importer import add_checkpoint, add_graphs
from sam2edge.store.inventory import (
    DAMAGED,
    ENGINE,
    GRAPH,
    UNFINISHED,
    UNKNOWN,
    WEIGHTS,
    check_file,
    list_builds,
    list_stored_files,
    remove_model,
)
from sam2edge.store.pull import pull_checkpoint
from sam2edge.variants import ALIASES, VARIANTS, Variant, find_variant

LICENCE = "Apache-2.0"  # of every checkpoint listed, the embedded one among them

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List, install, add, remove and check models. Without a command: list."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@_as_json
def list_models(as_json: bool = False) -> None:
    """List the models: id, release, side of the input in pixels, parameters, CPU time of a photo and of a tracked
    frame (torch, one core, measured by the project), what is installed, its size, and where the weights are.
    """
    rows = [_describe(variant) for variant in VARIANTS.values()]
    if as_json:
        free_bytes = shutil.disk_usage(paths.existing_parent(paths.root() / "any")).free
        click.echo(json.dumps({"models": rows, "store": str(paths.root()), "free_bytes": free_bytes}))
        return
    header = ("MODEL", "RELEASE", "INPUT", "PARAMETERS", "PHOTO", "FRAME", "INSTALLED", "SIZE", "CHECKPOINT")
    table = [header] + [
        (
            row["id"],
            row["release"],
            str(row["image_size"]),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['photo_cpu_ms'] / 1e3:.2f} s",
            f"{row['frame_cpu_ms'] / 1e3:.2f} s",
            _list_installed(row),
            _format_megabytes(row["stored_bytes"]) if row["stored_bytes"] else "-",
            row["checkpoint_url"] or "embedded",
        )
        for row in rows
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@models.command()
@click.argument("model", type=ModelId(), metavar="MODEL")
@_as_json
def pull(model: str, as_json: bool) -> None:
    """Download the official weights of MODEL; a broken download goes on where it stopped.

    They come from the makers' server, or from SAM2EDGE_MIRROR: an http(s) address or a folder that holds the files
    under their own names. Weights need torch to run; `models install` makes graphs of them, which do not.
    """
    variant = find_variant(model)
    source = variant.checkpoint
    there = source is not None and (paths.checkpoint_dir() / source.file_name).is_file()
    if source is not None and source.digest is not None and not there:
        size = "size not known" if source.size_bytes is None else _format_megabytes(source.size_bytes)
        note(f"downloading {source.file_name}, {size}")
    with byte_progress(source.file_name if source else model) as report:
        path = pull_checkpoint(variant, report, on_wait=lambda: note(f"waiting: {model} is being fetched already"))
    if as_json:
        click.echo(json.dumps({"model": variant.model_id, "path": str(path), "size_bytes": path.stat().st_size}))
        return
    click.echo(
        f"{path} ({_format_megabytes(path.stat().st_size)}), {'already there, ' if there else ''}checksum as published"
    )
    _tell_next_command(variant)


@models.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Replace files of the model that are there.")
@_as_json
def add(path: Path, replace: bool, as_json: bool) -> None:
    """Copy a checkpoint file, or a folder of exported graphs, into the store. The model is recognised from the file."""
    if path.is_dir():
        variant, target = add_graphs(path, replace)
    else:
        with byte_progress(path.name) as report:
            variant, target = add_checkpoint(path, replace, report)
    if as_json:
        click.echo(json.dumps({"model": variant.model_id, "path": str(target)}))
        return
    click.echo(f"{variant.model_id}: {target}")
    _tell_next_command(variant)


@models.command()
@click.argument("model", type=ModelId(), metavar="MODEL")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
def remove(model: str, yes: bool, as_json: bool) -> None:
    """Delete the weights, graphs, engines and unfinished downloads of MODEL."""
    variant = find_variant(model)
    files = list_stored_files(variant)
    if not files:
        raise InvalidInputError(
            f"the store has nothing of {variant.model_id}", expected="a model that is there", got=str(paths.root())
        )
    if not yes:
        if as_json or not (sys.stdin and sys.stdin.isatty()):
            raise click.UsageError("Nobody can be asked here: give --yes.")
        for file in files:
            click.echo(f"{_format_megabytes(file.size_bytes):>10}  {file.path}")
        total = _format_megabytes(sum(file.size_bytes for file in files))
        click.confirm(f"Delete these {len(files)} files, {total}?", abort=True)
    removed = remove_model(variant)
    num_bytes = sum(file.size_bytes for file in removed)
    if as_json:
        facts = {"removed": [str(f.path) for f in removed], "removed_bytes": num_bytes}
        click.echo(json.dumps({"model": variant.model_id, **facts}))
    else:
        click.echo(f"removed {len(removed)} files of {variant.model_id}, {_format_megabytes(num_bytes)}")


@models.command()
@_as_json
@click.pass_context
def verify(context: click.Context, as_json: bool) -> None:
    """Compare every file in the store with its checksum. The exit status is 1 if one is damaged."""
    with progress("reading the store"):
        findings = [check_file(file) for file in list_stored_files()]
    damaged = [finding for finding in findings if finding.state == DAMAGED]
    unknown = [finding for finding in findings if finding.state == UNKNOWN]
    if as_json:
        rows = [{"path": str(f.file.path), "state": f.state, "reason": f.reason, "remedy": f.remedy} for f in findings]
        click.echo(json.dumps({"store": str(paths.root()), "files": rows, "damaged": len(damaged)}))
    else:
        for finding in [*unknown, *damaged]:
            remedy = f"; remedy: {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.state}: {finding.file.path}: {finding.reason}{remedy}")
        total = _format_megabytes(sum(finding.file.size_bytes for finding in findings))
        click.echo(f"{len(findings)} files, {total}, {len(damaged)} damaged")
    if damaged:
        context.exit(1)


def _describe(variant: Variant) -> dict[str, Any]:
    checkpoint = variant.checkpoint
    files = list_stored_files(variant)
    photo_ms, frame_ms = find_cpu_ms(variant)
    return {
        "id": variant.model_id,
        "aliases": sorted(
            alias for alias, name in ALIASES.items() if name == variant.name and alias != variant.model_id
        ),
        "release": variant.release,
        "size": variant.size,
        "image_size": variant.image_size,
        "parameters": PARAMETERS[variant.size],
        "photo_cpu_ms": photo_ms,
        "frame_cpu_ms": frame_ms,
        "installed": paths.is_installed(variant),
        "weights": paths.find_checkpoint(variant) is not None,
        "graphs": list_builds(files, GRAPH),
        "engines": list_builds(files, ENGINE),
        "stored_bytes": sum(file.size_bytes for file in files),
        "unfinished_bytes": sum(file.size_bytes for file in files if file.kind == UNFINISHED),
        "checkpoint_url": checkpoint.url if checkpoint else None,
        "checkpoint_sha256": checkpoint.sha256 if checkpoint else None,
        "checkpoint_git_blob": checkpoint.git_blob if checkpoint else None,
        "checkpoint_bytes": checkpoint.size_bytes if checkpoint else None,
        "licence": LICENCE,
    }


def _list_installed(row: dict[str, Any]) -> str:
    parts = [WEIGHTS] if row["weights"] and row["checkpoint_url"] else []
    for kind in ("graphs", "engines"):
        if row[kind]:
            parts.append(f"{kind} {' '.join(row[kind])}")
    if row["unfinished_bytes"]:
        parts.append("unfinished download")
    return ", ".join(parts) or ("yes" if row["installed"] else "no")


def _tell_next_command(variant: Variant) -> None:
    """Weights alone run with torch only."""
    if importlib.util.find_spec("torch") is None and paths.find_graphs(variant, variant.image_size) is None:
        note(f"these weights do not run yet: torch is not installed; next: sam2edge models install {variant.model_id}")
    else:
        note(f"next: sam2edge segment PHOTO --point X,Y --model {variant.model_id}")


def _format_megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


models.add_command(install)
