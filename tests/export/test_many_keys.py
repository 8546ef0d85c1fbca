"""Sums over many keys: the memory attention of SAM 2.1 tiny at 1024, whose queries attend to 28,736 keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from sam2edge import contract  # noqa: E402
from sam2edge.export.compare import open_session  # noqa: E402
from sam2edge.export.precision import convert_to_half, expected_islands  # noqa: E402
from sam2edge.export.torch_reference import torch_runner  # noqa: E402
from sam2edge.export.tracing import fold, trace  # noqa: E402
from sam2edge.torch_sam2.checkpoint import load_model  # noqa: E402
from sam2edge.variants import find_variant  # noqa: E402

TINY = find_variant("sam2/hiera_tiny")


def test_attention_to_seven_memories_is_as_exact_in_float16(
    golden_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Golden weights, every slot in use, against torch in float32."""
    model = load_model(TINY, golden_checkpoint("sam2/hiera_tiny"), 1024)
    spec = contract.graph_specs(TINY, 1024)[contract.MEMORY_ATTENTION]
    random = np.random.default_rng(0)
    feed: dict[str, Any] = {t.name: random.normal(0, 0.5, t.shape).astype(np.float32) for t in spec.inputs}
    feed["memory_age"] = np.arange(7, dtype=np.int32)[None]
    feed |= {name: np.zeros_like(feed[name]) for name in ("memory_mask", "pointer_mask")}
    feed["pointer_age"] = np.linspace(0, 1, 16, dtype=np.float32)[None]
    wanted = torch_runner(model)(contract.MEMORY_ATTENTION, feed)["image_embed"]
    model.set_tiled(False)
    trace(model, spec, tmp_path / "float32.onnx")
    fold(tmp_path / "float32.onnx")
    graph = onnx.load(tmp_path / "float32.onnx")
    convert_to_half(graph, expected_islands(TINY, contract.MEMORY_ATTENTION))
    onnx.save(graph, tmp_path / "float16.onnx")
    for name, bound in (("float32", 1e-5), ("float16", 2e-3)):
        (found,) = open_session(tmp_path / f"{name}.onnx").run(["image_embed"], feed)
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert error <= bound, name
