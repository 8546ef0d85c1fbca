"""Checkpoint -> ONNX graphs with their contract in the metadata.

    python -m sam2edge.export.to_onnx sam2/hiera_tiny --checkpoint sam2.1_hiera_tiny.pt

writes into the store, where the onnxruntime backend finds them, and compares each graph with the torch model
(`sam2edge.export.parity`): one that differs too much is moved aside.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sam2edge import contract
from sam2edge.contract import GraphSpec
from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.export.command_line import errors_in_one_line, exit_with
from sam2edge.export.metrics import require_passed
from sam2edge.export.parity import check_graphs, find_checkpoint_to_export
from sam2edge.export.precision import check_precision, convert_to_half, expected_islands
from sam2edge.export.quantise import quantise
from sam2edge.export.tracing import fold, trace
from sam2edge.files import file_sha256
from sam2edge.store import paths
from sam2edge.store.manifest import describe_file, write_manifest
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.torch_sam2.model import Sam2
from sam2edge.variants import Variant, find_variant

# Smaller tensors stay float32: their halves save nothing.
MIN_HALVED_ELEMENTS = 1024


def export_graphs(
    variant: Variant,
    checkpoint: Path,
    image_size: int,
    folder: Path,
    prompt_slots: int = contract.NUM_PROMPT_SLOTS,
    half_weights: bool = False,
    precision: str = "fp32",
    for_engines: bool = False,
    memory_slots: int | None = None,
) -> list[Path]:
    """Loads the weights and writes their graphs, as `write_graphs` does; raises CheckpointError for unusable ones."""
    check_options(half_weights, precision)
    model = load_model(variant, checkpoint, image_size)
    digest = file_sha256(checkpoint)
    return write_graphs(model, digest, folder, prompt_slots, half_weights, precision, for_engines, memory_slots)


def write_graphs(
    model: Sam2,
    checkpoint_sha256: str,
    folder: Path,
    prompt_slots: int = contract.NUM_PROMPT_SLOTS,
    half_weights: bool = False,
    precision: str = "fp32",
    for_engines: bool = False,
    memory_slots: int | None = None,
) -> list[Path]:
    """Writes the model's graphs as `<folder>/<graph>.onnx` with their manifests; returns the paths of the graphs.

    `precision` is that of the arithmetic, as `sam2edge.export.precision` makes it; inputs and outputs are the same.
    `half_weights` stores the weights as float16 and casts them back in the graph: half the file, float32 arithmetic.
    float32 and int8 graphs are made for ONNX Runtime on a CPU, in tiles that its cache holds, unless they are
    `for_engines`; float16 ones always are for engines. The mask decoder of int8 graphs is float32.
    `memory_slots` is how many memories a tracked frame attends to, 1 to the model's own number (None).
    Raises GraphError when a traced graph breaks the contract, or its float32 islands are not the architecture's.
    """
    check_options(half_weights, precision)
    most = model.variant.num_mask_slots
    memory_slots = most if memory_slots is None else memory_slots
    if not 1 <= memory_slots <= most:
        raise InvalidInputError("number of memory slots cannot be used", expected=f"1 to {most}", got=memory_slots)
    model.set_tiled(precision != "fp16" and not for_engines)
    stamp = {
        "sam2edge_contract": str(contract.CONTRACT_VERSION),
        "sam2edge_model": model.variant.name,
        "sam2edge_image_size": str(model.image_size),
        "sam2edge_memory_slots": str(memory_slots),
        "sam2edge_precision": precision,
        "sam2edge_checkpoint_sha256": checkpoint_sha256,
    }
    written = []
    for name, spec in contract.graph_specs(model.variant, model.image_size, prompt_slots, memory_slots).items():
        path = folder / f"{name}.onnx"
        paths.write_atomically(path, lambda target, spec=spec: _write(model, spec, target, stamp, half_weights))  # type: ignore[misc]
        manifest = describe_file(
            path,
            model=model.variant.name,
            graph=name,
            image_size=model.image_size,
            precision=precision,
            prompt_slots=prompt_slots,
            memory_slots=memory_slots,
            contract_version=contract.CONTRACT_VERSION,
            checkpoint_sha256=checkpoint_sha256,
        )
        write_manifest(path, manifest)
        written.append(path)
    return written


def check_options(half_weights: bool, precision: str) -> None:
    """Raises InvalidInputError for an unknown precision, and for half weights where the graph has them anyway."""
    check_precision(precision)
    if half_weights and precision != "fp32":
        raise InvalidInputError(
            f"{precision} graphs have no float32 weights to halve", expected="one of the two options", got="both"
        )


def _write(model: Sam2, spec: GraphSpec, target: Path, stamp: dict[str, str], half_weights: bool) -> None:
    trace(model, spec, target)
    fold(target)
    graph = onnx.load(target)
    if half_weights:
        halve_weights(graph)
    if stamp["sam2edge_precision"] == "fp16":
        convert_to_half(graph, expected_islands(model.variant, spec.name))
    if stamp["sam2edge_precision"] == "int8" and spec.name != contract.MASK_DECODER:
        graph = quantise(graph)
    contract_json = json.dumps({"inputs": list(map(str, spec.inputs)), "outputs": list(map(str, spec.outputs))})
    helper.set_model_props(graph, {**stamp, "sam2edge_tensors": contract_json})
    onnx.checker.check_model(graph, full_check=True)
    check_tensors(graph, spec)
    onnx.save(graph, target)


def check_tensors(graph: onnx.ModelProto, spec: GraphSpec) -> None:
    """Raises GraphError unless the graph's inputs and outputs are exactly those of the contract."""
    for kind, wanted, found in (
        ("inputs", spec.inputs, graph.graph.input),
        ("outputs", spec.outputs, graph.graph.output),
    ):
        actual = tuple(
            contract.TensorSpec(
                v.name,
                tuple(d.dim_value for d in v.type.tensor_type.shape.dim),
                helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
            )
            for v in found
        )
        if actual != wanted:
            raise GraphError(
                f"{kind} of the traced {spec.name} break the contract",
                expected=", ".join(map(str, wanted)),
                got=", ".join(map(str, actual)),
            )


def halve_weights(graph: onnx.ModelProto) -> None:
    """Stores every large float32 tensor that float16 holds exactly as such, behind a Cast back to float32, in place.

    The others are tables computed while the graph was made, of positions say, which need their digits.
    """
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < MIN_HALVED_ELEMENTS:
            continue
        name, halved = tensor.name, f"{tensor.name}.half"
        exact = numpy_helper.to_array(tensor)
        values = exact.astype(np.float16)
        if not np.array_equal(values.astype(np.float32), exact):
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, halved))
        casts.append(helper.make_node("Cast", [halved], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


@errors_in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export a SAM 2 checkpoint to ONNX graphs.")
    parser.add_argument("model", help="model id, such as sam2/hiera_tiny")
    parser.add_argument("--checkpoint", type=Path, help="official .pt or .safetensors; default: the one in the store")
    parser.add_argument("--size", type=int, help="side of the model input in pixels; default: the model's own")
    parser.add_argument(
        "--precision", choices=paths.GRAPH_PRECISIONS, default="fp32", help="of the arithmetic; default: fp32"
    )
    parser.add_argument("--out", type=Path, help="folder to write to; default: the store")
    parser.add_argument("--slots", type=int, default=contract.NUM_PROMPT_SLOTS, help="points a prompt can have")
    parser.add_argument(
        "--memory-slots",
        type=int,
        help="memories that a tracked frame attends to; fewer are quicker and track a little worse; default: all",
    )
    parser.add_argument("--half-weights", action="store_true", help="store weights as float16: half the file")
    parser.add_argument("--for-engines", action="store_true", help="fp32 graphs for engines on a GPU, not for a CPU")
    args = parser.parse_args(arguments)
    variant = find_variant(args.model)
    size = args.size or variant.image_size
    checkpoint = find_checkpoint_to_export(variant, args.checkpoint)
    kind = paths.FP32_FOR_ENGINES if args.for_engines and args.precision == "fp32" else args.precision
    folder = args.out or paths.graph_dir(variant, size, kind)
    check_options(args.half_weights, args.precision)
    model, digest = load_model(variant, checkpoint, size), file_sha256(checkpoint)
    written = write_graphs(
        model, digest, folder, args.slots, args.half_weights, args.precision, args.for_engines, args.memory_slots
    )
    outcomes = check_graphs(model, folder, args.precision)
    require_passed(outcomes)
    for path in written:
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB); {outcomes[path.stem]}")
    return 0


if __name__ == "__main__":
    exit_with(main)
