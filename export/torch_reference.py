"""The model that graphs and engines are compared with: torch, float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sam2edge import contract
from sam2edge.export.compare import Runner
from sam2edge.export.graphs import GRAPHS
from sam2edge.export.metrics import Tensors
from sam2edge.torch_sam2.model import Sam2


def torch_runner(model: Sam2) -> Runner:
    """Computes the graphs in torch, on the CPU in float32."""
    modules = {name: graph(model).eval() for name, graph in GRAPHS.items()}
    specs = contract.graph_specs(model.variant, model.image_size)

    @torch.inference_mode()
    def run(name: str, feed: Tensors) -> dict[str, NDArray[Any]]:
        outputs = modules[name](*(torch.from_numpy(np.ascontiguousarray(v)) for v in feed.values()))
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {t.name: value.numpy() for t, value in zip(specs[name].outputs, outputs, strict=True)}

    return run
