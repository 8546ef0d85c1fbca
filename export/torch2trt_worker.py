"""One graph's torch module -> one serialised engine by way of torch2trt, in a process of its own.

What `build_one` does with TensorRT's own parser, told to the parent in the same lines. torch2trt traces the wrapped
module itself (`use_onnx=True`) with the contract's names, and only its serialised engine is kept: its runtime module
allocates anew in every call. It types weakly, so fp16 is its own choice of layers there and not the graph's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sam2edge import contract
from sam2edge.errors import GraphError, Sam2EdgeError
from sam2edge.export.build_worker import Events, described
from sam2edge.export.graphs import GRAPHS
from sam2edge.torch_sam2.checkpoint import load_model
from sam2edge.variants import find_variant


def convert(args: argparse.Namespace) -> tuple[bytes, dict[str, Any]]:
    """The serialised engine and the facts that `to_engine` wants of it. Raises GraphError where there is none."""
    torch2trt = importlib.import_module("torch2trt").torch2trt
    library = importlib.import_module(args.library)
    variant = find_variant(args.model)
    spec = contract.graph_specs(variant, args.size, args.slots)[args.graph.stem]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = GRAPHS[spec.name](load_model(variant, args.checkpoint, args.size)).to(device).eval()
    inputs = [torch.zeros(t.shape, dtype=getattr(torch, t.dtype), device=device) for t in spec.inputs]
    with torch.no_grad():
        converted = torch2trt(
            module,
            inputs,
            use_onnx=True,
            fp16_mode=args.precision == "fp16",
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
        )
    engine = converted.engine
    if engine is None:
        raise GraphError(f"torch2trt built no engine of {spec.name}", got="nothing from TensorRT's builder or parser")
    tensors = {t.name: t for t in (described(library, _Tensor(engine, i)) for i in range(engine.num_io_tensors))}
    missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in tensors]
    if missing:
        raise GraphError(f"torch2trt's engine of {spec.name} lacks tensors", got=f"no {', '.join(missing)}")
    facts = {
        "version": library.__version__,
        "inputs": [list(tensors[t.name]) for t in spec.inputs],
        "outputs": [list(tensors[t.name]) for t in spec.outputs],
        "device_memory_bytes": int(engine.device_memory_size_v2),
    }
    return bytes(engine.serialize()), facts


class _Tensor:
    """A tensor of an engine, asked as one of a network."""

    def __init__(self, engine: Any, index: int) -> None:
        self.name = engine.get_tensor_name(index)
        self.shape = engine.get_tensor_shape(self.name)
        self.dtype = engine.get_tensor_dtype(self.name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Convert one graph with torch2trt; started by to_engine.")
    parser.add_argument("graph", type=Path)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--library", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--precision", required=True)
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = Events(os.dup(1))
    os.dup2(2, 1)
    try:
        content, facts = convert(args)
        args.engine.write_bytes(content)
    # torch2trt and torch.onnx raise classes of many kinds; each is told, none may end this as a traceback.
    except Exception as error:
        reason = str(error) if isinstance(error, Sam2EdgeError) else f"{type(error).__name__}: {error}"
        events.send("failed", reason=" ".join(reason.split()))
        return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    events.send("built", peak_bytes=peak, **facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
