"""float32 graph -> strongly typed float16 graph: the types stand in the file, and no builder is left to choose.

Everything becomes float16 but for islands, found by how the graph hangs together and never by a node's name:

- attention scores: each Softmax and what leads to it after the matrix product of queries and keys; the two products
  around it stay in float16, for TensorRT fuses an attention only where both are;
- LayerNormalization: a strongly typed network computes it in the type of its input, whatever `stash_type` asks for;
- ReduceMean: a mean over a whole map sums more than float16 holds;
- angles: each Sin and Cos with everything before it back to the graph's inputs (pixel coordinates do not fit float16);
- what no input reaches (position tables), which a runtime folds when it loads the graph, and rounds once at its end.

Inputs and outputs stay float32, as `sam2edge.contract` has them, so precision is a graph's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.store.paths import GRAPH_PRECISIONS
from sam2edge.variants import Variant

ATTENTION, ANGLES = "attention", "angles"

# Between the score product and its Softmax: the scale, the mask, and what only moves elements about.
_SCORE_STEPS = {"Add", "Mul", "Div", "Reshape", "Transpose"}

# Inputs that ONNX wants in float32 whatever the type of the data: Resize's region and scales.
_ALWAYS_FLOAT32 = {"Resize": {1, 2}}

_HALF_MAX = float(np.finfo(np.float16).max)


def check_precision(precision: str) -> None:
    """Raises InvalidInputError unless `precision` is one that graphs are made in."""
    if precision not in GRAPH_PRECISIONS:
        raise InvalidInputError("unknown precision", expected=", ".join(GRAPH_PRECISIONS), got=repr(precision))


def expected_islands(variant: Variant, graph_name: str) -> dict[str, int]:
    """How many attention and angle islands the model's graph must have, counted from its architecture.

    An attention may be exported in parts, so that of those there may be more. Raises GraphError for a graph that
    nobody has counted yet.
    """
    counts = {
        "image_encoder": (sum(variant.stages) if variant.trunk in ("hiera", "vit") else 0, 0),
        "mask_decoder": (7, 2),  # two blocks of three attentions and a last one; sine and cosine of the points
        "memory_attention": (2 * variant.memory_layers, 2 if variant.is_2_1 else 0),
        # Two layers of a perceiver read the whole memory and themselves; above 256 pixels also windows.
        "memory_encoder": (4 if variant.memory_latents else 0, 0),
    }
    if graph_name not in counts:
        raise GraphError(
            f"graph {graph_name} has no count of float32 islands", expected=", ".join(counts), got=graph_name
        )
    return dict(zip((ATTENTION, ANGLES), counts[graph_name], strict=True))


def convert_to_half(model: ModelProto, expected: dict[str, int]) -> None:
    """Makes the float32 graph a float16 one in place, with its islands in float32.

    Raises GraphError when the islands found are not those of `expected` (kind -> count), when a matched pattern is
    broken (a Softmax that no matrix product feeds), or when a constant does not fit float16.
    """
    graph = model.graph
    islands = find_islands(graph)
    found = {kind: len(starts) for kind, starts in islands.items()}
    if found[ATTENTION] < expected[ATTENTION] or found[ANGLES] != expected[ANGLES]:
        raise GraphError(
            "float32 islands do not match the architecture",
            expected=f"at least {expected[ATTENTION]} of {ATTENTION}, {expected[ANGLES]} of {ANGLES}",
            got=", ".join(f"{count} of {kind}" for kind, count in found.items()),
            remedy="the traced graph has changed: look at export/precision.py",
        )
    kept = {index for starts in islands.values() for members in starts.values() for index in members}
    kept |= {index for index, node in enumerate(graph.node) if node.op_type in ("LayerNormalization", "ReduceMean")}
    kept |= set(range(len(graph.node))) - find_reached(graph)
    _Converter(model, kept).run()


def find_islands(graph: GraphProto) -> dict[str, dict[int, set[int]]]:
    """kind -> {index of the node that makes the island: indices of its nodes}, itself included.

    Of the angles those that depend on an input.
    """
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    reached = find_reached(graph)
    islands: dict[str, dict[int, set[int]]] = {ATTENTION: {}, ANGLES: {}}
    for index, node in enumerate(graph.node):
        if node.op_type == "Softmax":
            islands[ATTENTION][index] = _score_path(graph, index, producers)
        elif node.op_type in ("Sin", "Cos") and index in reached:
            islands[ANGLES][index] = _ancestors(graph, index, producers)
    return islands


def find_reached(graph: GraphProto) -> set[int]:
    """The nodes that depend on an input of the graph; nodes stand in order of work."""
    dependent, found = {value.name for value in graph.input}, set()
    for index, node in enumerate(graph.node):
        if dependent.intersection(node.input):
            found.add(index)
            dependent.update(node.output)
    return found


def _score_path(graph: GraphProto, softmax: int, producers: dict[str, int]) -> set[int]:
    """The nodes after the score product up to the Softmax, which is included."""
    path, index = {softmax}, softmax
    while True:
        before = [producers[name] for name in graph.node[index].input if name in producers]
        product = next((i for i in before if graph.node[i].op_type == "MatMul"), None)
        if product is not None:
            return path
        step = next((i for i in before if graph.node[i].op_type in _SCORE_STEPS), None)
        if step is None:
            raise GraphError(
                "a Softmax is not fed by a matrix product",
                expected=f"MatMul, then any of {', '.join(sorted(_SCORE_STEPS))}, then Softmax",
                got=f"{', '.join(graph.node[i].op_type for i in before) or 'no node'} before {graph.node[index].name}",
            )
        path.add(step)
        index = step


def _ancestors(graph: GraphProto, start: int, producers: dict[str, int]) -> set[int]:
    found, waiting = {start}, [start]
    while waiting:
        before = {producers[name] for name in graph.node[waiting.pop()].input if name in producers} - found
        found |= before
        waiting += before
    return found


class _Converter:
    """One conversion: which tensors are float32 now, and which copies and casts have been made of them."""

    def __init__(self, model: ModelProto, kept: set[int]) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.graph = model.graph
        self.kept = kept
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.constants = {t.name: t for t in self.graph.initializer if t.data_type == TensorProto.FLOAT}
        self.halves = _made_in_half(self.graph, kept, self.floats)
        self.nodes: list[NodeProto] = []
        self.copies: dict[tuple[str, int], str] = {}  # (tensor, type) -> name of its copy in that type

    def run(self) -> None:
        for index, node in enumerate(self.graph.node):
            self._convert(node, TensorProto.FLOAT if index in self.kept else TensorProto.FLOAT16)
            self.nodes.append(node)
        self._cast_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]
        self._drop_unused_constants()

    def _convert(self, node: NodeProto, wanted: int) -> None:
        fixed = _ALWAYS_FLOAT32.get(node.op_type, set())
        for position, name in enumerate(node.input):
            if name in self.constants or name in self.floats:
                node.input[position] = self._in_type(name, TensorProto.FLOAT if position in fixed else wanted)
        if node.op_type == "Cast" and wanted == TensorProto.FLOAT16:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16

    def _in_type(self, name: str, wanted: int) -> str:
        """The name of the tensor in the wanted type; a copy is made where it is of the other."""
        if (name in self.halves) == (wanted == TensorProto.FLOAT16):
            return name
        key = (name, wanted)
        if key not in self.copies:
            copy = self.copies[key] = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            if name in self.constants:
                self.graph.initializer.append(_halve_tensor(self.constants[name], copy))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [copy], name=copy, to=wanted))
        return self.copies[key]

    def _cast_outputs(self) -> None:
        """Graph outputs keep their name and become float32 again."""
        for output in self.graph.output:
            name, inner = output.name, f"{output.name}.inner"
            if name not in self.halves:
                continue
            for node in self.nodes:
                node.input[:] = [inner if n == name else n for n in node.input]
                node.output[:] = [inner if n == name else n for n in node.output]
            self.nodes.append(helper.make_node("Cast", [inner], [name], name=f"{name}.float", to=TensorProto.FLOAT))

    def _drop_unused_constants(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _made_in_half(graph: GraphProto, kept: Iterable[int], floats: set[str]) -> set[str]:
    """Names of the float tensors that come out of nodes outside the islands."""
    inside = set(kept)
    made = (name for index, node in enumerate(graph.node) if index not in inside for name in node.output)
    return {name for name in made if name in floats}


def _halve_tensor(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    if values.size and float(np.abs(values).max()) > _HALF_MAX:
        raise GraphError(
            f"constant {tensor.name} does not fit float16",
            expected=f"at most {_HALF_MAX:g}",
            got=f"{float(np.abs(values).max()):g}",
            remedy="export with --precision fp32",
        )
    return numpy_helper.from_array(values.astype(np.float16), name)
