"""Stands for `torch2trt`: runs the module it is given and makes an "engine" of what it saw."""

from types import SimpleNamespace

import torch


def torch2trt(module, inputs, use_onnx, fp16_mode, input_names, output_names):
    assert use_onnx
    outputs = module(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)  # as the real one does
    named = dict(zip([*input_names, *output_names], [*inputs, *outputs], strict=True))
    return SimpleNamespace(engine=_Engine(named, fp16_mode))


class _Engine:
    device_memory_size_v2 = 777

    def __init__(self, tensors, half):
        self.tensors, self.half = tensors, half
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_shape(self, name):
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name):
        return {torch.float32: "f4", torch.int32: "i4"}[self.tensors[name].dtype]

    def serialize(self):
        return b"engine of torch2trt in " + (b"fp16" if self.half else b"fp32")
