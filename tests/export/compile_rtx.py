"""TensorRT for RTX as the compiler that needs no GPU: a graph's plan, and the fused attentions in it."""

from __future__ import annotations

import re
from pathlib import Path


def compile_plan(path: Path) -> bytes:
    """The plan of a graph, strongly typed."""
    import tensorrt_rtx

    log = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    builder = tensorrt_rtx.Builder(log)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, log)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    assert plan is not None
    return bytes(memoryview(plan))


def count_fused(plan: bytes) -> int:
    """Attentions that are one kernel: a plan lists its kernels. Any other writes its whole score matrix to memory."""
    return len(re.findall(rb"function=\{ name=_gemm_mha_v2", plan))
