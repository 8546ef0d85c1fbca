"""A backend on the exported ONNX files, whichever library runs them: which files, and that they keep the contract."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.backends.base import BackendRequest, HostFeatures
from sam2edge.backends.graph_backend import GraphBackend
from sam2edge.contract import CONTRACT_VERSION, GraphSpec, TensorSpec
from sam2edge.errors import GraphError, InvalidInputError
from sam2edge.store.integrity import check_unchanged


class OnnxGraph(ABC):
    """One loaded file: the metadata it states, its tensors, and how to run it."""

    metadata: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @abstractmethod
    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        """The outputs of these names, in arrays of their own; safe to call from several threads."""


class OnnxGraphBackend(GraphBackend):
    """One model's files on the CPU: image encoder and mask decoder, and for tracking the two of the memory."""

    precisions: ClassVar[tuple[str, ...]]
    """Of the graphs that the library runs."""

    def __init__(self, request: BackendRequest) -> None:
        if request.graph_dir is None:
            raise GraphError(
                f"no ONNX graphs of {request.variant.model_id} at image size {request.image_size} on this machine",
                expected="image_encoder.onnx and mask_decoder.onnx",
                got="none",
                remedy=f"sam2edge models install {request.variant.model_id}{_size_option(request)}",
            )
        self._graph_dir = request.graph_dir
        graphs = {name: self._open(self._graph_dir / f"{name}.onnx") for name in contract.IMAGE_GRAPHS}
        decoder = graphs[contract.MASK_DECODER]
        slots = decoder.metadata.get("sam2edge_memory_slots", "")
        super().__init__(
            request.variant, request.image_size, _prompt_slots(decoder), int(slots) if slots.isdecimal() else None
        )
        # Without a checkpoint that the caller named, the graphs are at least all of one.
        self._checkpoint_sha256 = request.checkpoint_sha256 or decoder.metadata.get("sam2edge_checkpoint_sha256")
        for name, graph in graphs.items():
            self._check(name, graph)
        self.precision = decoder.metadata.get("sam2edge_precision", "fp32")
        if self.precision not in self.precisions:
            raise GraphError(
                f"backend {self.name} cannot run {self.precision} graphs",
                expected=" or ".join(self.precisions),
                got=str(self._graph_dir),
                remedy="use the onnxruntime backend, or export with another --precision",
            )
        self._graphs = graphs
        self._graphs_lock = threading.Lock()

    @classmethod
    def open(cls, request: BackendRequest) -> OnnxGraphBackend:
        if request.device not in (None, "cpu"):
            raise InvalidInputError(
                f"the {cls.name} backend runs on the CPU alone",
                expected="device None or 'cpu'",
                got=repr(request.device),
                remedy="use the torch backend for a GPU",
            )
        return cls(request)

    @abstractmethod
    def open_graph(self, path: Path) -> OnnxGraph:
        """Loads one file; may raise whatever the library raises."""

    def run(self, graph: str, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> HostFeatures:
        loaded, spec = self._graph(graph), self.specs[graph]
        names = outputs or [tensor.name for tensor in spec.outputs]
        values = loaded.run(names, {tensor.name: feed[tensor.name] for tensor in spec.inputs})
        return HostFeatures(dict(zip(names, values, strict=True)))

    def _graph(self, name: str) -> OnnxGraph:
        """Those of the memory are opened at first use: images need none of them, and a model may come without."""
        with self._graphs_lock:
            if name not in self._graphs:
                path = self._graph_dir / f"{name}.onnx"
                if not path.is_file():
                    raise GraphError(
                        f"{self.variant.model_id} cannot track: a graph of its memory is missing",
                        expected=str(path),
                        got="no file",
                        remedy="export again with python -m sam2edge.export.to_onnx, or use the torch backend",
                    )
                graph = self._open(path)
                self._check(name, graph)
                self._graphs[name] = graph
            return self._graphs[name]

    def _open(self, path: Path) -> OnnxGraph:
        check_unchanged(path)
        try:
            return self.open_graph(path)
        except Exception as error:  # native libraries raise classes of their own
            found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
            reason = str(error).strip().splitlines()
            raise GraphError(
                f"graph {path.name} cannot be loaded",
                expected="an ONNX file written by sam2edge.export",
                got=f"{found} ({reason[0][:160] if reason else type(error).__name__})",
                remedy="export it again, or reinstall sam2edge for the embedded model",
            ) from error

    def _check(self, name: str, graph: OnnxGraph) -> None:
        check_graph(graph, self.specs[name], self.variant.name)
        made_of = graph.metadata.get("sam2edge_checkpoint_sha256")
        if self._checkpoint_sha256 not in (None, made_of):
            raise GraphError(
                "the exported graphs were made of another checkpoint",
                expected=f"SHA-256 {str(self._checkpoint_sha256)[:16]}...",
                got=f"{str(made_of)[:16]}...",
                remedy="export this checkpoint with python -m sam2edge.export.to_onnx MODEL --checkpoint FILE",
            )


def check_graph(graph: OnnxGraph, spec: GraphSpec, variant_name: str) -> None:
    """Raises GraphError unless the loaded graph keeps the contract: version, model, names, shapes, dtypes."""
    stated = (graph.metadata.get("sam2edge_contract"), graph.metadata.get("sam2edge_model"))
    if stated != (str(CONTRACT_VERSION), variant_name):
        raise GraphError(
            f"graph {spec.name} was made for something else",
            expected=f"contract {CONTRACT_VERSION} of {variant_name}",
            got=f"contract {stated[0]} of {stated[1]}",
            remedy="export the graphs again with this version of sam2edge",
        )
    for kind, wanted, found in (("inputs", spec.inputs, graph.inputs), ("outputs", spec.outputs, graph.outputs)):
        if found != wanted:
            raise GraphError(
                f"{kind} of graph {spec.name} break the contract",
                expected=", ".join(map(str, wanted)),
                got=", ".join(map(str, found)),
                remedy="export the graphs again with this version of sam2edge",
            )


def _size_option(request: BackendRequest) -> str:
    return "" if request.image_size == request.variant.image_size else f" --size {request.image_size}"


def _prompt_slots(decoder: OnnxGraph) -> int:
    for tensor in decoder.inputs:
        if tensor.name == "point_labels" and len(tensor.shape) == 2 and isinstance(tensor.shape[1], int):
            return tensor.shape[1]
    raise GraphError("mask decoder has no static prompt slots", expected="point_labels (1, N)", got="none")
