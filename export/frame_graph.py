"""A camera's frames -> the model's input, as a graph: what `sam2edge.imaging.frame.image_to_input` computes.

    python -m sam2edge.export.frame_graph sam2/hiera_tiny --frame 1920x1080 --out FOLDER

An antialiased bilinear resize is two products with constant matrices, one for each axis, which a GPU does in a few
milliseconds and the CPU beside it does not. Needs neither torch nor weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sam2edge import contract
from sam2edge.contract import TensorSpec
from sam2edge.export.command_line import errors_in_one_line, exit_with
from sam2edge.imaging.frame import MEAN_RGB, STD_RGB, make_triangle_filter
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.variants import Variant, find_variant

OPSET = 17  # as sam2edge.export.tracing, which needs torch


def write_frame_graph(
    variant: Variant, image_size: int, frame_hw: tuple[int, int], precision: str, folder: Path
) -> Path:
    """Writes the graph with its manifest; returns its path. `precision` "fp16" or "fp32" is that of the products."""
    spec = contract.frame_spec(frame_hw, image_size)
    path = folder / f"{spec.name}.onnx"
    graph = make_frame_graph(image_size, frame_hw, precision)
    paths.write_atomically(path, lambda target: onnx.save(graph, target))
    manifest = describe_file(
        path,
        model=variant.name,
        graph=spec.name,
        image_size=image_size,
        precision=precision,
        contract_version=contract.CONTRACT_VERSION,
    )
    write_manifest(path, manifest)
    return path


def make_frame_graph(image_size: int, frame_hw: tuple[int, int], precision: str) -> onnx.ModelProto:
    """Inputs and outputs are those of `contract.frame_spec`."""
    spec = contract.frame_spec(frame_hw, image_size)
    dtype = np.float16 if precision == "fp16" else np.float32
    height, width = frame_hw
    mean, std = (np.array(values)[:, None, None] for values in (MEAN_RGB, STD_RGB))
    constants: dict[str, NDArray[np.generic]] = {
        "columns": make_triangle_filter(width, image_size).T.astype(dtype),
        "rows": make_triangle_filter(height, image_size).astype(dtype),
        "scale": (1 / (255 * std)).astype(np.float32),
        "offset": (-mean / std).astype(np.float32),
        "batch": np.zeros(1, np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["planes", "columns"], ["narrow"]),
        helper.make_node("MatMul", ["rows", "narrow"], ["small"]),
        helper.make_node("Gather", ["small", "channels"], ["rgb"], axis=0),
        helper.make_node("Cast", ["rgb"], ["rgb.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["rgb.float", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["normal"]),
        helper.make_node("Unsqueeze", ["normal", "batch"], ["image"]),
    ]
    inputs, outputs = ([_describe(tensor) for tensor in tensors] for tensors in (spec.inputs, spec.outputs))
    initialisers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, spec.name, inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _describe(tensor: TensorSpec) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, dtype, tensor.shape)


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the graph that resizes and normalises a camera's frames.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--frame", required=True, metavar="WxH", help="size of the frames in pixels")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument("--precision", choices=paths.PRECISIONS, default="fp16", help="of the products; default: fp16")
    parser.add_argument("--out", type=Path, help="folder to write to; default: that of the model's graphs")
    args = parser.parse_args(arguments)
    variant = find_variant(args.model)
    size = args.size or variant.image_size
    folder = args.out or paths.graph_dir(variant, size, args.precision)
    print(write_frame_graph(variant, size, contract.read_frame_size(args.frame), args.precision, folder))
    return 0


if __name__ == "__main__":
    exit_with(main)
