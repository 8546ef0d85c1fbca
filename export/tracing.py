"""One graph of a model -> a folded ONNX file in standard operators alone."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from onnx import helper

from sam2edge.contract import GraphSpec
from sam2edge.errors import GraphError
from sam2edge.export.graphs import GRAPHS, TABLE_SOURCES
from sam2edge.torch_sam2.model import Sam2

OPSET = 17  # the newest that TensorRT 10.3's parser takes for these graphs


def trace(model: Sam2, spec: GraphSpec, target: Path) -> None:
    """Traces one graph of the model into an ONNX file, its tensors named and shaped by the contract."""
    example = tuple(torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in spec.inputs)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer)  # persistent: of other buffers the tracer makes anonymous constants
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every constant that is meant to be one
        torch.onnx.export(
            GRAPHS[spec.name](model).eval(),
            example,
            str(target),
            dynamo=False,
            do_constant_folding=False,  # `fold` does it, and knows what to leave
            opset_version=OPSET,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
        )


def fold(path: Path) -> None:
    """Folds what does not depend on the inputs (shape arithmetic, stacked weights), in place.

    ONNX Runtime's basic level does it and stays within standard operators. Position tables stay small computations,
    which every runtime folds when it loads the graph: as overridable inputs their sources are no constants here.
    """
    graph = onnx.load(path)
    sources = [t for t in graph.graph.initializer if t.name.endswith(TABLE_SOURCES)]
    graph.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in sources)
    onnx.save(graph, path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path)
    kept = [value for value in graph.graph.input if value.name not in {t.name for t in sources}]
    del graph.graph.input[:]
    graph.graph.input.extend(kept)
    foreign = {node.domain for node in graph.graph.node} - {""}
    if foreign:
        raise GraphError("folding left the standard operators", expected="ONNX alone", got=", ".join(foreign))
    # The optimiser lists every domain it knows; a reader that knows fewer refuses such a file.
    del graph.opset_import[:]
    graph.opset_import.append(helper.make_opsetid("", OPSET))
    onnx.save(graph, path)
