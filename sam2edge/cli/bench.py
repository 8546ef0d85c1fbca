"""`sam2edge bench`: what this machine does, model by model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import click

from sam2edge.cli.hints import note
from sam2edge.cli.model_options import BackendName, ModelId
from sam2edge.cli.published import find_published
from sam2edge.cli.terminal import progress
from sam2edge.errors import Sam2EdgeError
from sam2edge.machine.board import read_board
from sam2edge.store import paths
from sam2edge.variants import VARIANTS, Variant, find_variant

_COLUMNS = ("MODEL", "BACKEND", "SIZE", "LOAD S", "EMBED MS", "PROMPT MS", "FRAME MS", "PEAK MB")


@click.command()
@click.option("--model", "model_ids", type=ModelId(), multiple=True, help="Repeatable. Default: all installed.")
@click.option("--backend", type=BackendName(), default="auto", show_default=True, help="The same for all models.")
@click.option("--rounds", type=click.IntRange(min=3), default=20, show_default=True, help="Timed calls of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(model_ids: tuple[str, ...], backend: str, rounds: int, as_json: bool) -> None:
    """Measure each model on this machine: embed a photo, answer a click, track a frame, and the memory it takes.

    Each model runs in a process of its own on a picture of 1280x720. Times are medians, with the 99th percentile after
    the slash; two warm-up calls of each kind are left out. On a Jetson for which others have published figures, those
    follow.
    """
    variants = [find_variant(name) for name in model_ids] or [v for v in VARIANTS.values() if paths.is_installed(v)]
    rows = []
    for variant in variants:
        with progress(f"measuring {variant.model_id}"):
            found = _measure(variant, backend, rounds)
        if "error" in found:
            note(f"{variant.model_id}: {found['error']}")
        rows.append(found)
    published = find_published(read_board())
    if as_json:
        found = {"rounds": rounds, "photo_hw": [720, 1280], "models": rows}
        click.echo(json.dumps({**found, "published": [asdict(figure) for figure in published]}))
    else:
        _print_table([_format(row) for row in rows if "error" not in row])
        for figure in published:
            said = f"{figure.milliseconds:g} ms for a photo and a prompt: {figure.what} ({figure.source})"
            click.echo(f"published for {figure.board}: {said}")
    if all("error" in row for row in rows):
        raise Sam2EdgeError("no model could be measured", remedy="sam2edge doctor shows what works here")


def _measure(variant: Variant, backend: str, rounds: int) -> dict[str, Any]:
    """What `sam2edge.cli.bench_worker` prints, or {"model", "error"}."""
    command = [sys.executable, "-m", "sam2edge.cli.bench_worker", variant.name, backend, str(rounds)]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = result.stderr.strip().splitlines()
        return {"model": variant.model_id, "error": lines[-1] if lines else f"exit status {result.returncode}"}
    return found


def _format(row: dict[str, Any]) -> tuple[str, ...]:
    times = (row[kind] for kind in ("embed", "prompt", "frame"))
    shown = ["-" if t is None else f"{t['median_ms']:.1f} / {t['p99_ms']:.1f}" for t in times]
    peak = f"{row['peak_bytes'] / 1e6:.0f}"
    return (row["model"], row["backend"], str(row["image_size"]), f"{row['load_seconds']:.1f}", *shown, peak)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    table = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
