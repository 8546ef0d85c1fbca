"""Where an exported graph goes wrong: the first layer whose output is not that of a graph that can be trusted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from sam2edge.contract import GraphSpec
from sam2edge.export.metrics import Metrics, Tensors, compare
from sam2edge.export.tracing import fold, trace
from sam2edge.torch_sam2.model import Sam2

TENSORS_AT_ONCE = 24
"""How many intermediate tensors are looked at in one run while the first wrong layer is searched."""


def find_first_bad_layer(model: Sam2, path: Path, spec: GraphSpec, feed: Tensors, bounds: Metrics) -> str:
    """Compares with a fresh float32 trace of the same model, whose tensors have the same names."""
    with tempfile.TemporaryDirectory() as folder:
        trusted = Path(folder) / path.name
        model.train(False)  # unbaked, as graphs are traced
        trace(model, spec, trusted)
        fold(trusted)
        return first_bad_tensor(path, trusted, feed, bounds) or "none in common with a fresh trace; only the outputs"


def first_bad_tensor(suspect: Path, trusted: Path, feed: Tensors, bounds: Metrics) -> str | None:
    """The first tensor of `suspect`, in its order of work, that differs from the one of that name in `trusted`.

    Intermediate tensors are marked as outputs a few at a time, so that memory stays that of a few. Returns the name
    of the node that gives it with its operator; None when every shared tensor agrees.
    """
    graphs = [onnx.load(path) for path in (suspect, trusted)]
    shared = set(_float_tensors(graphs[1]))
    order = {name: node for name, node in _float_tensors(graphs[0]).items() if name in shared}
    names = list(order)
    for start in range(0, len(names), TENSORS_AT_ONCE):
        marked = names[start : start + TENSORS_AT_ONCE]
        found, wanted = (_run_marked(graph, marked, feed) for graph in graphs)
        for name in marked:
            if not compare({name: wanted[name]}, {name: found[name]}).within(bounds):
                return f"{order[name].name} ({order[name].op_type})"
    return None


def _float_tensors(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The floating-point tensors that nodes give, in order of work."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    wanted = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    values = (*inferred.value_info, *inferred.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type in wanted}
    return {name: node for node in model.graph.node for name in node.output if name in floats}


def _run_marked(model: onnx.ModelProto, names: Sequence[str], feed: Tensors) -> dict[str, NDArray[Any]]:
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    own = {output.name for output in marked.graph.output}
    marked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(marked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), dict(feed)), strict=True))
