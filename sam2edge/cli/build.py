"""`sam2edge build`: engines of a model for this machine, made by the exporter in processes of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click

from sam2edge import store
from sam2edge.errors import BackendUnavailableError, InvalidInputError
from sam2edge.variants import Variant, find_variant

COMPILERS = ("tensorrt", "torch2trt")


@click.command(no_args_is_help=True)
@click.argument("model", metavar="MODEL")
@click.option("--size", type=int, metavar="S", help="Side of the model input in pixels. Default: the model's own.")
@click.option("--precision", type=click.Choice(store.PRECISIONS), default="fp16", show_default=True)
@click.option("--compiler", type=click.Choice(COMPILERS), default="tensorrt", show_default=True)
@click.option("--checkpoint", metavar="FILE", help="Official weights, .pt or .safetensors; exports the graphs anew.")
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
    size = variant.image_size if size is None else size
    common = [variant.name, "--size", str(size), "--precision", precision]
    weights = [] if checkpoint is None else ["--checkpoint", checkpoint]
    if compiler == "torch2trt" and importlib.util.find_spec("torch2trt") is None:  # before the export takes minutes
        raise BackendUnavailableError(
            "torch2trt is not installed", remedy="pip install git+https://github.com/NVIDIA-AI-IOT/torch2trt"
        )
    if checkpoint is not None or store.find_graphs(variant, size, precision) is None:
        _check_can_export(variant, size, precision, checkpoint)
        _run(context, "to_onnx", [*common, *weights])
    options = [*common, "--compiler", compiler, "--level", str(level), *(["--skip-built"] if skip_built else [])]
    _run(context, "to_engine", [*options, *(weights if compiler == "torch2trt" else [])])


def _run(context: click.Context, script: str, arguments: list[str]) -> None:
    """Runs one of the exporter's scripts; it tells its own failure in one line, so its status is all that is passed."""
    status = subprocess.run([sys.executable, "-m", f"sam2edge.export.{script}", *arguments]).returncode
    if status != 0:
        context.exit(status if status in (1, 2, 130) else 1)


def _check_can_export(variant: Variant, size: int, precision: str, checkpoint: str | None) -> None:
    if size < 64 or size % 32:
        raise InvalidInputError("image size cannot be used", expected="a multiple of 32, at least 64", got=size)
    missing = [name for name in ("torch", "onnx", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailableError(
            f"no {precision} graphs of {variant.model_id} at image size {size}, and they cannot be exported here",
            expected="torch, onnx and safetensors",
            got=f"no {', '.join(missing)}",
            remedy=f"pip install 'sam2edge[export]', or copy graphs into {store.graph_dir(variant, size, precision)}",
        )
