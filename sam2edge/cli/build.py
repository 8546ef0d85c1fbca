"""`sam2edge build`: engines of a model for this machine, made by the exporter in processes of its own."""

from __future__ import annotations

import click

from sam2edge.cli.model_options import FileName, ModelId
from sam2edge.engine_build import EXIT_INTERRUPTED, build_engines, run_script
from sam2edge.store import paths
from sam2edge.variants import find_variant

COMPILERS = ("tensorrt", "torch2trt")


@click.command(no_args_is_help=True)
@click.argument("model", type=ModelId(), metavar="MODEL")
@click.option("--size", type=int, metavar="S", help="Side of the model input in pixels. Default: the model's own.")
@click.option("--precision", type=click.Choice(paths.PRECISIONS), default="fp16", show_default=True)
@click.option("--compiler", type=click.Choice(COMPILERS), default="tensorrt", show_default=True)
@click.option("--checkpoint", type=FileName(), help="Official weights, .pt or .safetensors; exports the graphs anew.")
@click.option("--level", type=click.IntRange(0, 5), default=3, show_default=True, help="Build time against speed.")
@click.option("--skip-built", is_flag=True, help="Keep engines that are still right.")
@click.pass_context
def build(
    context: click.Context,
    model: str,
    size: int | None,
    precision: str,
    compiler: str,
    checkpoint: str | None,
    level: int,
    skip_built: bool,
) -> None:
    """Build TensorRT engines of MODEL (see `sam2edge models list`) for this machine.

    Exports the ONNX graphs first where the store has none, which takes torch; graphs made elsewhere do as well.
    """
    variant = find_variant(model)
    status = build_engines(
        variant,
        variant.image_size if size is None else size,
        precision,
        checkpoint,
        run_script,
        compiler=compiler,
        level=level,
        skip_built=skip_built,
    )
    # The script has told its failure in one line, so that its status is all that is passed on.
    if status != 0:
        context.exit(status if status in (1, 2, EXIT_INTERRUPTED) else 1)
