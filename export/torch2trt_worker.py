"""One graph's torch module -> one serialised engine by way of torch2trt, in a process of its own.

It does what `build_worker` does with TensorRT's own parser, and reports to the parent in the same lines. torch2trt
traces the wrapped module itself (`use_onnx=True`) with the contract's names, and only its serialised engine is kept:
its runtime module allocates memory in every call. It types weakly, so fp16 is its own choice of layers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch

from sam2edge import contract
from sam2edge.engine_build.options import BuildTask
from sam2edge.errors import GraphError
from sam2edge.export.build_worker import Events, describe_tensor, run_task
from sam2edge.export.graphs import GRAPHS
from sam2edge.export.tracing import OPSET
from sam2edge.machine.device import peak_memory_bytes
from sam2edge.torch_sam2.checkpoint import load_model


def convert(library: ModuleType, task: BuildTask, events: Events) -> None:
    """Writes the serialised engine to `task.engine`. Raises GraphError where torch2trt gives none."""
    torch2trt = importlib.import_module("torch2trt").torch2trt
    options = task.options
    assert options.checkpoint is not None
    specs = contract.graph_specs(options.variant, options.image_size, task.prompt_slots, task.memory_slots)
    spec = specs[task.graph]
    dtypes = [getattr(torch, tensor.dtype) for tensor in spec.inputs]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(options.variant, options.checkpoint, options.image_size)
    module = _FloatInputs(GRAPHS[spec.name](model), dtypes).to(device).eval()
    inputs = [torch.zeros(t.shape, device=device) for t in spec.inputs]
    # It calls torch.onnx.export with the defaults, which since torch 2.9 are those of another exporter.
    vars(torch.onnx)["export"] = partial(torch.onnx.export, dynamo=False, opset_version=OPSET)
    with torch.no_grad():
        converted = torch2trt(
            module,
            inputs,
            use_onnx=True,
            fp16_mode=options.precision == "fp16",
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
        )
    engine = converted.engine
    if engine is None:
        raise GraphError(f"torch2trt built no engine of {spec.name}", got="nothing from TensorRT's builder or parser")
    tensors = {t.name: t for t in (describe_tensor(library, _Tensor(engine, i)) for i in range(engine.num_io_tensors))}
    missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in tensors]
    if missing:
        raise GraphError(f"torch2trt's engine of {spec.name} lacks tensors", got=f"no {', '.join(missing)}")
    task.engine.write_bytes(bytes(engine.serialize()))
    events.send(
        "built",
        version=library.__version__,
        inputs=[list(tensors[t.name]) for t in spec.inputs],
        outputs=[list(tensors[t.name]) for t in spec.outputs],
        device_memory_bytes=int(engine.device_memory_size_v2),
        peak_bytes=peak_memory_bytes(),
    )


class _FloatInputs(torch.nn.Module):
    """A graph's module that takes every input as float32: torch2trt drops inputs of other types, without a word."""

    def __init__(self, module: torch.nn.Module, dtypes: Sequence[torch.dtype]) -> None:
        super().__init__()
        self.module, self.dtypes = module, dtypes

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*(value.to(dtype) for value, dtype in zip(inputs, self.dtypes, strict=True)))


class _Tensor:
    """A tensor of an engine, asked as one of a network."""

    def __init__(self, engine: Any, index: int) -> None:
        self.name = engine.get_tensor_name(index)
        self.shape = engine.get_tensor_shape(self.name)
        self.dtype = engine.get_tensor_dtype(self.name)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_task(arguments, convert)


if __name__ == "__main__":
    sys.exit(main())
