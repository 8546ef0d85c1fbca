"""`sam2edge build`: TensorRT engines of a model for this machine."""

from __future__ import annotations

from pathlib import Path

import click

from sam2edge.cli.build_progress import BuildProgress
from sam2edge.cli.hints import note
from sam2edge.cli.model_options import FileName, ModelId
from sam2edge.engine_build.build import build_engines
from sam2edge.engine_build.options import COMPILERS, BuildOptions
from sam2edge.machine.device import has_nvidia_gpu
from sam2edge.store import paths
from sam2edge.variants import find_variant


@click.command(no_args_is_help=True)
@click.argument("model", type=ModelId(), metavar="MODEL")
@click.option("--size", type=int, metavar="S", help="Side of the model input in pixels. Default: the model's own.")
@click.option("--precision", type=click.Choice(paths.PRECISIONS), default="fp16", show_default=True)
@click.option("--compiler", type=click.Choice(COMPILERS), default="tensorrt", show_default=True)
@click.option(
    "--checkpoint", type=FileName(), help="Official weights, .pt or .safetensors; the graphs are exported from them."
)
@click.option("--graphs", metavar="DIR", help="Folder of exported ONNX graphs. Default: the store, then the package.")
@click.option("--out", metavar="DIR", help="Folder to write engines to. Default: the store.")
@click.option(
    "--level",
    type=click.IntRange(0, 5),
    default=3,
    show_default=True,
    help="More takes longer to build and may run faster.",
)
@click.option("--frame", metavar="WxH", help="Also build an engine that resizes a camera's frames of this size.")
@click.option(
    "--memory-slots", type=click.IntRange(1, 7), help="Memories a tracked frame attends to; fewer are quicker."
)
@click.option("--skip-built", is_flag=True, help="Keep engines that are still valid.")
def build(
    model: str,
    size: int | None,
    precision: str,
    compiler: str,
    checkpoint: str | None,
    graphs: str | None,
    out: str | None,
    level: int,
    frame: str | None,
    memory_slots: int | None,
    skip_built: bool,
) -> None:
    """Build TensorRT engines of MODEL (see `sam2edge models list`) for this machine.

    Exports the ONNX graphs first where the store has none, which needs torch; graphs exported on another machine work
    too.
    """
    variant = find_variant(model)
    if not has_nvidia_gpu():
        note("no NVIDIA GPU is visible on this machine: engines run only on the kind of GPU that they were built for")
    places = {"checkpoint": checkpoint, "graphs": graphs, "out": out}
    options = BuildOptions(
        variant.name,
        variant.image_size if size is None else size,
        precision,
        compiler,
        level,
        skip_built,
        frame=frame,
        memory_slots=memory_slots,
        **{name: None if path is None else Path(path) for name, path in places.items()},
    )
    with BuildProgress(f"building engines of {variant.model_id}") as progress:
        built = build_engines(options, progress, keep_output=True)
    for graph in built:
        click.echo(options.engine_dir / f"{graph}{paths.ENGINE_SUFFIX}")
