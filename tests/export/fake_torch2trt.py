"""Stands for `torch2trt`: runs the module it is given and makes an "engine" of what it saw.

Like its flattener, it keeps floating-point and bool inputs alone and drops others, so that names no longer match.
"""

from types import SimpleNamespace
from typing import Any

import torch


def torch2trt(module: Any, inputs: Any, use_onnx: Any, fp16_mode: Any, input_names: Any, output_names: Any) -> Any:
    assert use_onnx
    kept = [value for value in inputs if value.dtype in (torch.half, torch.float, torch.bool)]
    for index, name in enumerate(input_names):
        assert kept[index].shape is not None, name  # an IndexError, as the real one raises
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)  # as the real one does
    named = dict(zip([*input_names, *output_names], [*inputs, *outputs], strict=True))
    return SimpleNamespace(engine=_Engine(named, fp16_mode))


class _Engine:
    device_memory_size_v2 = 777

    def __init__(self, tensors: Any, half: Any) -> None:
        self.tensors, self.half = tensors, half
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: Any) -> Any:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: Any) -> Any:
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name: Any) -> Any:
        return {torch.float32: "f4", torch.int32: "i4"}[self.tensors[name].dtype]

    def serialize(self) -> Any:
        return b"engine of torch2trt in " + (b"fp16" if self.half else b"fp32")
